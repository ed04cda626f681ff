"""What laboratories and wards measure, and what its columns are called in six languages.

The languages are English, German, French, Spanish, Italian and Dutch. Codes are LOINC's
(loinc.org), one for each kind of unit where LOINC tells mass from amount. The two ranges only order
units and flag columns for a person, they reject no value: `usual` is where the median of a cohort
of adults is expected, around the reference intervals that laboratories print, widened by us;
`plausible` is ours, wide enough for intensive care.
"""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """Something that is measured, with what its column may be called.

    Attributes:
        name: in words.
        unit: of the two ranges; the first of `codes`.
        codes: LOINC code by UCUM unit, the likeliest unit first.
        usual: where the median of many patients lies.
        plausible: where single values lie.
        names: spellings, lower case without accents.
    """

    name: str
    unit: str
    codes: dict[str, str]
    usual: Range
    plausible: Range
    names: tuple[str, ...]


def _of(codes: str, usual: Range, plausible: Range, names: str) -> Measure:
    pairs = dict(pair.split("=") for pair in codes.split())
    listed = tuple(name.strip() for name in names.split(","))
    return Measure(
        name=listed[0],
        unit=next(iter(pairs)),
        codes=pairs,
        usual=usual,
        plausible=plausible,
        names=listed,
    )


# The node has no molar mass of these, so that each kind of unit stands for itself.
_PHOSPHATE = "phosphate, phosphorus, phosphat, phosphore, fosfato, fosforo"
_MAGNESIUM = "magnesium, mg, magnesemie, magnesio"
_ALBUMIN_RATIO = (
    "albumin creatinine ratio, acr, uacr, albumin kreatinin quotient, "
    "rapport albumine creatinine, cociente albumina creatinina"
)
MEASURES: tuple[Measure, ...] = (
    _of(
        "mmol/L=14647-2 mg/dL=2093-3", (3.2, 7.2), (1.0, 25.0),
        "total cholesterol, cholesterol, chol, choles, tchol, totchol, tc, cholest, "
        "gesamtcholesterin, cholesterin, cholesterol total, colesterol, colesterol total, "
        "colesterolo, colesterolo totale",
    ),
    _of(
        "mmol/L=14646-4 mg/dL=2085-9", (0.8, 2.0), (0.1, 5.0),
        "HDL cholesterol, hdl, hdl c, hdlc, hdl cholesterin, cholesterol hdl, colesterol hdl, "
        "colesterolo hdl",
    ),
    _of(
        "mmol/L=22748-8 mg/dL=2089-1", (1.5, 5.0), (0.2, 20.0),
        "LDL cholesterol, ldl, ldl c, ldlc, ldl cholesterin, cholesterol ldl, colesterol ldl, "
        "colesterolo ldl",
    ),
    _of(
        "mmol/L=70204-3 mg/dL=43396-1", (2.0, 6.0), (0.5, 24.0),
        "non-HDL cholesterol, non hdl, nonhdl, non hdl c, nicht hdl cholesterin, "
        "colesterol no hdl, colesterolo non hdl",
    ),
    _of(
        "mmol/L=14927-8 mg/dL=2571-8", (0.6, 3.0), (0.1, 60.0),
        "triglycerides, triglyceride, trig, tg, trigs, triglyceriden, triglyzeride, trigliceridos, "
        "trigliceridi",
    ),
    _of(
        "mmol/L=14749-6 mg/dL=2345-7", (3.8, 12.0), (0.8, 60.0),
        "glucose, glu, gluc, gl, bg, cgm, sensor glucose, blood glucose, blood sugar, "
        "plasma glucose, glukose, blutzucker, bz, "
        "glycemie, glycemia, glucosa, glucemia, glicemia, glucosio",
    ),
    _of(
        "mmol/L=14771-0 mg/dL=1558-6", (3.8, 9.0), (0.8, 60.0),
        "fasting glucose, fasting blood glucose, fasting plasma glucose, fpg, fbg, "
        "nuchternglukose, nuchternblutzucker, glycemie a jeun, glucosa en ayunas, "
        "glicemia a digiuno",
    ),
    _of(
        "umol/L=14682-9 mg/dL=2160-0", (50.0, 220.0), (8.0, 3000.0),
        "creatinine, creat, crea, scr, cr, serum creatinine, kreatinin, creatinina, kreatinine",
    ),
    _of(
        "mmol/L=22664-7 mg/dL=3094-0", (2.5, 15.0), (0.3, 110.0),
        "urea nitrogen, bun, blood urea nitrogen, harnstoff n, harnstoffstickstoff, "
        "azote ureique, nitrogeno ureico, azotemia",
    ),
    _of(
        "umol/L=14933-6 mg/dL=3084-1", (200.0, 500.0), (20.0, 2000.0),
        "urate, uric acid, uric, ua, harnsaure, acide urique, acido urico, uricemia",
    ),
    _of(
        "umol/L=14631-6 mg/dL=1975-2", (4.0, 40.0), (0.5, 1200.0),
        "bilirubin, total bilirubin, bili, tbil, tbili, gesamtbilirubin, bilirubine, "
        "bilirubine totale, bilirrubina, bilirrubina total, bilirubina, bilirubina totale",
    ),
    _of(
        "mmol/L=2000-8 mg/dL=17861-6", (1.9, 2.7), (0.5, 6.0),
        "calcium, ca, serum calcium, kalzium, calcemie, calcio, calcemia",
    ),
    _of(
        "mmol/L=2951-2 meq/L=2951-2", (132.0, 146.0), (90.0, 200.0),
        "sodium, na, natrium, serum sodium, natremie, sodio, natremia",
    ),
    _of(
        "mmol/L=2823-3 meq/L=2823-3", (3.4, 5.2), (1.0, 12.0),
        "potassium, k, kalium, serum potassium, kaliemie, potasio, potassio, kaliemia",
    ),
    _of(
        "mmol/L=2075-0 meq/L=2075-0", (94.0, 112.0), (50.0, 170.0),
        "chloride, cl, chlorid, chlorure, chlore, cloruro, cloro",
    ),
    _of(
        "mmol/L=1963-8 meq/L=1963-8", (18.0, 30.0), (2.0, 60.0),
        "bicarbonate, hco3, bicarb, total co2, tco2, bikarbonat, bicarbonato",
    ),
    _of(
        "%=4548-4 mmol/mol=59261-8", (4.5, 10.0), (3.0, 22.0),
        "HbA1c, a1c, hba1, hb a1c, hemoglobin a1c, haemoglobin a1c, glycated haemoglobin, "
        "glycosylated hemoglobin, hemoglobine glyquee, hemoglobina glicosilada, "
        "hemoglobina glucosilada, hemoglobina glicada, emoglobina glicata",
    ),
    _of(
        "mm[Hg]=8480-6 kPa=8480-6", (100.0, 160.0), (30.0, 320.0),
        "systolic pressure, systolic, systolic blood pressure, systolic bp, sbp, sys, sysbp, "
        "trestbps, bp systolic, blutdruck systolisch, systolischer blutdruck, rr systolisch, "
        "rrsys, pas, pression arterielle systolique, presion arterial sistolica, sistolica, "
        "pressione sistolica, pressione arteriosa sistolica",
    ),
    _of(
        "mm[Hg]=8462-4 kPa=8462-4", (55.0, 100.0), (10.0, 220.0),
        "diastolic pressure, diastolic, diastolic blood pressure, diastolic bp, dbp, dia, diabp, "
        "bp diastolic, blutdruck diastolisch, diastolischer blutdruck, rr diastolisch, rrdia, pad, "
        "pression arterielle diastolique, presion arterial diastolica, diastolica, "
        "pressione diastolica, pressione arteriosa diastolica",
    ),
    _of(
        "mm[Hg]=8478-0 kPa=8478-0", (65.0, 120.0), (15.0, 260.0),
        "mean arterial pressure, map, mean blood pressure, mittlerer arterieller druck, mad, "
        "pression arterielle moyenne, presion arterial media, pressione arteriosa media",
    ),
    _of(
        "Cel=8310-5 [degF]=8310-5", (35.8, 38.2), (25.0, 44.0),
        "body temperature, temperature, temp, koerpertemperatur, korpertemperatur, temperatur, "
        "temperature corporelle, temperatura, temperatura corporal, temperatura corporea",
    ),
    _of(
        "cm=8302-2 m=8302-2 [in_i]=8302-2", (150.0, 185.0), (40.0, 230.0),
        "body height, height, ht, hgt, stature, groesse, grosse, koerpergroesse, korpergrosse, "
        "taille, talla, estatura, altura, altezza, statura",
    ),
    _of(
        "kg=29463-7 [lb_av]=29463-7 g=29463-7", (50.0, 100.0), (1.0, 350.0),
        "body weight, weight, wt, wgt, bw, gewicht, koerpergewicht, korpergewicht, poids, "
        "poids corporel, peso, peso corporal, peso corporeo",
    ),
    _of(
        "kg/m2=39156-5", (19.0, 36.0), (8.0, 90.0),
        "body mass index, bmi, quetelet, koerpermasseindex, imc, indice de masse corporelle, "
        "indice de masa corporal, indice di massa corporea",
    ),
    _of(
        "cm=8280-0 [in_i]=8280-0", (70.0, 120.0), (30.0, 220.0),
        "waist circumference, waist, taillenumfang, bauchumfang, tour de taille, "
        "perimetro abdominal, circunferencia de cintura, circonferenza vita, girovita",
    ),
    _of(
        "/min=8867-4", (50.0, 110.0), (15.0, 300.0),
        "heart rate, hr, pulse, pulse rate, heartrate, resting heart rate, puls, herzfrequenz, hf, "
        "frequence cardiaque, fc, pouls, frecuencia cardiaca, frequenza cardiaca, polso",
    ),
    _of(
        "/min=9279-1", (11.0, 28.0), (3.0, 90.0),
        "respiratory rate, rr, resp rate, resp, breathing rate, atemfrequenz, af, "
        "frequence respiratoire, fr, frecuencia respiratoria, frequenza respiratoria",
    ),
    _of(
        "%=59408-5", (90.0, 100.0), (30.0, 100.0),
        "oxygen saturation, spo2, sao2, sat, o2 sat, o2sat, sauerstoffsattigung, "
        "saturation en oxygene, saturacion de oxigeno, saturazione di ossigeno, saturazione",
    ),
    _of(
        "g/dL=718-7 g/L=718-7", (9.0, 16.0), (2.0, 26.0),
        "haemoglobin, hemoglobin, hb, hgb, hgl, hamoglobin, hemoglobine, hemoglobina, emoglobina",
    ),
    _of(
        "%=4544-3 1=4544-3", (28.0, 48.0), (8.0, 75.0),
        "haematocrit, hematocrit, hct, pcv, hamatokrit, hkt, hematocrite, hematocrito, ematocrito",
    ),
    _of(
        "10*12/L=789-8 10*6/uL=789-8", (3.2, 5.4), (0.8, 9.0),
        "erythrocytes, rbc, red blood cells, red cells, erythrozyten, ery, globules rouges, "
        "hematies, eritrocitos, hematies, globuli rossi, eritrociti",
    ),
    _of("fL=787-2", (80.0, 100.0), (45.0, 150.0), "MCV, mean corpuscular volume, vgm, vcm"),
    _of(
        "10*9/L=6690-2 /uL=6690-2", (4.0, 13.0), (0.05, 300.0),
        "leukocytes, wbc, white blood cells, white cells, leucocytes, leukozyten, leuko, leukos, "
        "globules blancs, leucocitos, leucociti, globuli bianchi",
    ),
    _of(
        "10*9/L=751-8 /uL=751-8", (2.0, 9.0), (0.0, 200.0),
        "neutrophils, neutrophil count, anc, neut, neutrophile, neutrofilos, neutrofili",
    ),
    _of(
        "10*9/L=731-0 /uL=731-0", (0.8, 3.5), (0.0, 200.0),
        "lymphocytes, lymphocyte count, lymph, lymphozyten, linfocitos, linfociti",
    ),
    _of(
        "10*9/L=777-3 /uL=777-3", (130.0, 380.0), (2.0, 2500.0),
        "platelets, plt, platelet, platelet count, thrombocytes, thrombozyten, thrombo, "
        "plaquettes, plaquetas, piastrine",
    ),
    _of(
        "g/L=1751-7 g/dL=1751-7", (25.0, 48.0), (5.0, 70.0),
        "albumin, alb, serum albumin, albumine, albumina",
    ),
    _of(
        "g/L=2885-2 g/dL=2885-2", (55.0, 82.0), (15.0, 150.0),
        "total protein, tp, gesamteiweiss, gesamtprotein, proteines totales, proteinas totales, "
        "proteine totali",
    ),
    _of(
        "mL/min/{1.73_m2}=98979-8", (40.0, 115.0), (1.0, 220.0),
        "filtration rate, egfr, gfr, estimated gfr, dfg, dfge, tfg, filtrato glomerulare, vfg",
    ),
    _of(
        "mg/L=1988-5 mg/dL=1988-5", (1.0, 60.0), (0.0, 700.0),
        "C-reactive protein, crp, hscrp, hs crp, c reaktives protein, proteine c reactive, "
        "proteina c reactiva, pcr, proteina c reattiva",
    ),
    _of(
        "ng/mL=33959-8 ug/L=33959-8", (0.02, 5.0), (0.0, 1000.0),
        "procalcitonin, pct, prokalzitonin, procalcitonine, procalcitonina",
    ),
    _of(
        "mm/h=4537-7", (3.0, 50.0), (0.0, 200.0),
        "erythrocyte sedimentation rate, esr, bsg, bks, vs, vsg, vitesse de sedimentation, ves",
    ),
    _of(
        "U/L=1742-6 ukat/L=1742-6", (10.0, 70.0), (1.0, 20000.0),
        "ALT, alat, gpt, sgpt, alanine aminotransferase, alanine transaminase, tgp",
    ),
    _of(
        "U/L=1920-8 ukat/L=1920-8", (12.0, 160.0), (1.0, 20000.0),
        "AST, asat, got, sgot, aspartate aminotransferase, aspartate transaminase, tgo",
    ),
    _of(
        "U/L=6768-6 ukat/L=6768-6", (40.0, 1500.0), (5.0, 20000.0),
        "alkaline phosphatase, alp, alk phos, alkphos, alkalische phosphatase, "
        "phosphatase alcaline, phosphatases alcalines, pal, fosfatasa alcalina, fosfatasi alcalina",
    ),
    _of(
        "U/L=2324-2 ukat/L=2324-2", (10.0, 120.0), (1.0, 10000.0),
        "GGT, gamma gt, ggtp, gamma glutamyl transferase, gammagt",
    ),
    _of(
        "U/L=2532-0 ukat/L=2532-0", (120.0, 500.0), (20.0, 30000.0),
        "LDH, lactate dehydrogenase, laktatdehydrogenase",
    ),
    _of(
        "U/L=2157-6 ukat/L=2157-6", (40.0, 500.0), (3.0, 400000.0),
        "creatine kinase, ck, cpk, creatine phosphokinase, kreatinkinase",
    ),
    _of(
        "ng/L=67151-1 ng/mL=6598-7", (3.0, 200.0), (0.0, 100000.0),
        "troponin T, hstnt, tnt, troponin t hs, troponine t, troponina t, ctnt",
    ),
    _of(
        "ng/L=89579-7 ng/mL=10839-9", (2.0, 500.0), (0.0, 500000.0),
        "troponin I, hstni, tni, troponine i, troponina i, ctni",
    ),
    _of(
        "pg/mL=33762-6 ng/L=33762-6", (50.0, 5000.0), (1.0, 100000.0),
        "NT-proBNP, ntprobnp, nt pro bnp, probnp",
    ),
    _of(
        "pg/mL=30934-4 ng/L=30934-4", (20.0, 1500.0), (1.0, 50000.0),
        "BNP, brain natriuretic peptide",
    ),
    _of("1=6301-6", (0.9, 3.2), (0.5, 20.0), "INR, prothrombin inr, pt inr, inr value"),
    _of(
        "s=5902-2", (9.0, 20.0), (5.0, 200.0),
        "prothrombin time, protime, thromboplastinzeit, temps de prothrombine, "
        "tiempo de protrombina, tempo di protrombina",
    ),
    _of(
        "s=14979-9", (22.0, 45.0), (10.0, 250.0),
        "aPTT, ptt, activated partial thromboplastin time, tca",
    ),
    _of(
        "ug/L=2276-4 ng/mL=2276-4", (20.0, 500.0), (1.0, 100000.0),
        "ferritin, ferritine, ferritina",
    ),
    _of(
        "m[IU]/L=3016-3 u[IU]/mL=3016-3", (0.5, 4.5), (0.0, 500.0),
        "TSH, thyrotropin, thyreotropin, thyroid stimulating hormone, tirotropina",
    ),
    _of(
        "mmol/L=2524-7", (0.6, 4.0), (0.1, 40.0),
        "lactate, lac, lactic acid, laktat, lactato, lattato",
    ),
    _of("mmol/L=14879-1", (0.7, 1.8), (0.1, 6.0), _PHOSPHATE),
    _of("mg/dL=2777-1", (2.0, 5.5), (0.3, 18.0), _PHOSPHATE),
    _of("mmol/L=2601-3", (0.6, 1.1), (0.1, 5.0), _MAGNESIUM),
    _of("mg/dL=19123-9", (1.5, 2.7), (0.3, 12.0), _MAGNESIUM),
    _of("mg/g=9318-7", (3.0, 300.0), (0.0, 20000.0), _ALBUMIN_RATIO),
    _of(
        "{pack-years}=8664-5", (5.0, 60.0), (0.0, 250.0),
        "pack years, packyears, packungsjahre, paquets annees, paquetes ano, pacchetti anno",
    ),
    _of(
        "%=10230-1", (25.0, 65.0), (5.0, 90.0),
        "ejection fraction, lvef, ef, ejektionsfraktion, fraction d ejection, "
        "fraccion de eyeccion, frazione di eiezione, fevi",
    ),
)  # fmt: skip
