"""Simulation engines: what a schedule does in time, for many patients at once.

- `linear`: one to three compartments in closed form, exact and differentiable;
- `turnover`: responses driven by a concentration that is known in closed form;
- `fixed_step`: Runge-Kutta for any right-hand side;
- `stiff`: an implicit solver, patient by patient, for what the others cannot.

Binding a published model to the closed form takes its individual parameters, each (patients,
spans), and what its routes are:

    kinetics = LinearKinetics(
        disposition=Disposition(clearance=cl, volume=v1, exchanges=((q, v2),)),
        routes=(Route(stages=1, rate=ka, lag=tlag), Route()),  # oral, intravenous
        starts=batch.traits.starts,  # leave out where no parameter changes
    )
    kinetics.concentrations(batch.doses, times)  # (patients, times)
    kinetics.areas(batch.doses, times)  # from hour 0 to each time
"""
