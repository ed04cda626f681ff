"""What columns and marks are called: English, German, French, Spanish, Italian, Dutch.

Spellings are lower case and without accents, the surest first. Codes of diseases are SNOMED CT's.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


# Diseases and habits that a table answers by yes or no: SNOMED CT codes and names.
CONDITIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SNOMED//73211009", _names("diabetes mellitus, diabetes, dm, diab, diabete, diabetes mell")),
    (
        "SNOMED//38341003",
        _names(
            "hypertension, htn, arterial hypertension, hypertonie, bluthochdruck, hta, "
            "hipertension, ipertensione, hbp, high blood pressure"
        ),
    ),
    (
        "SNOMED//77176002",
        _names(
            "smoker, smoking, current smoker, raucher, fumeur, fumador, fumatore, tabagisme, roker"
        ),
    ),
    (
        "SNOMED//49436004",
        _names(
            "atrial fibrillation, af, afib, vorhofflimmern, vhf, fibrillation auriculaire, "
            "fibrillation atriale, fibrilacion auricular, fibrillazione atriale"
        ),
    ),
    ("SNOMED//230690007", _names("stroke, cva, schlaganfall, avc, ictus, apoplex")),
    (
        "SNOMED//22298006",
        _names(
            "myocardial infarction, mi, ami, heart attack, herzinfarkt, myokardinfarkt, "
            "infarctus du myocarde, infarto, infarto de miocardio, infarto miocardico"
        ),
    ),
    (
        "SNOMED//84114007",
        _names(
            "heart failure, chf, hf, herzinsuffizienz, insuffisance cardiaque, "
            "insuficiencia cardiaca, scompenso cardiaco"
        ),
    ),
    (
        "SNOMED//53741008",
        _names(
            "coronary artery disease, cad, khk, coronary heart disease, chd, coronaropathie, "
            "enfermedad coronaria, coronaropatia"
        ),
    ),
    ("SNOMED//13645005", _names("copd, chronic obstructive pulmonary disease, bpco, epoc")),
    ("SNOMED//195967001", _names("asthma, asthme, asma")),
    (
        "SNOMED//709044004",
        _names("chronic kidney disease, ckd, niereninsuffizienz, irc, insuficiencia renal cronica"),
    ),
)

SEX = _names(
    "sex, gender, geschlecht, sexe, sexo, sesso, genero, genere, genre, m f, m w, geslacht"
)
MALE = _names("m, male, man, mann, mannlich, homme, masculin, h, hombre, varon, masculino, maschio")
FEMALE = _names(
    "f, female, woman, w, frau, weiblich, femme, feminin, mujer, femenino, donna, femmina, "
    "femminile, vrouw"
)
AGE = _names(
    "age, alter, edad, eta, age years, age at visit, alter jahre, alter in jahren, "
    "ageyears, leeftijd"
)
BIRTH = _names(
    "birth date, birthdate, date of birth, dob, birth, birth dt, brthdt, brthdtc, geburtsdatum, "
    "geb datum, gebdatum, date de naissance, naissance, fecha de nacimiento, nacimiento, "
    "data di nascita, nascita, geboortedatum"
)
PATIENT = _names(
    "patient id, patientid, mrn, usubjid, patient, medical record number, patient number, ptnum, "
    "pat id, patid, pid, subject id, subject, subjectid, subjid, person id, personid, seqn, id, "
    "patientennummer, patnr, patienten id, pat nr, patienten nr, numero patient, ipp, nip, "
    "no patient, numero de historia, nhc, paciente, id paciente, paziente, id paziente, "
    "codice paziente, unique id, study id, patientnummer, patientnr"
)
TIME = _names(
    "date, datum, fecha, data, visit date, visit, date of visit, visit dt, visitdate, sample date, "
    "collection date, collected, collection time, sampled, exam date, examination date, time, "
    "timestamp, datetime, date time, observation date, result date, admission date, index date, "
    "untersuchungsdatum, abnahmedatum, besuchsdatum, zeitpunkt, date de visite, date prelevement, "
    "date de prelevement, fecha de visita, fecha visita, fecha de extraccion, data visita, "
    "data prelievo, effective date, accept dt, randdt, trtsdt, rfstdtc, afnamedatum, bezoekdatum"
)
DEATH = _words(
    "dth death died deceased tod todesdatum deces muerte fallecimiento morte overleden"
    " overlijdensdatum"
)
KNOWN = _names(
    "issued, reported, report date, released, validated, validation date, available, "
    "freigabe, freigabedatum, befunddatum, date validation, fecha de validacion, data validazione, "
    "result date, result time, result datetime, resulted, date resulted, ergebnisdatum, "
    "date de resultat, fecha de resultado, data risultato, uitslagdatum"
)
UNIT = _names(
    "unit, units, uom, einheit, einheiten, unite, unites, unidad, unidades, unita, eenheid"
)
VALUE = _names(
    "value, result, result value, numeric value, wert, ergebnis, messwert, valeur, resultat, "
    "valor, resultado, valore, risultato, aval, uitslag, waarde"
)
LINE_NUMBERS = _names("rownames, row, row number, index, line, zeile, unnamed 0, nr, lfd nr")
NEUTRAL = _words(
    "baseline bl pre op calc first last serum plasma blood s p b se mean avg value level lab labor "
    "result val wert initial admission adm visit v1 v0 day0 patient pt total measured at the of de "
    "la le du en im am der die das di del in"
)
# Words that make a column something else than the measure that it names.
TELLTALE = _words(
    "urine urin urinary csf liquor delta change diff difference target goal ratio date datum time "
    "unit units einheit flag history family drug med medication treatment percent quartile "
    "category cat class group score z zscore log index missing max maximum peak exercise father "
    "mother donor fetal death risk status stage grade type"
)
YES = _names(
    "yes, y, true, t, ja, j, oui, o, si, s, vrai, verdadero, vero, pos, positive, 1 yes, present"
)
NO = _names("no, n, false, f, nein, nee, non, faux, falso, neg, negative, 0 no, absent")
