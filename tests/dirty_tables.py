"""Ten tables with the dirt of those that users of scikit-learn, pandas and OpenML know; of their rows there is none.

`python tests/dirty_tables.py FOLDER` writes them. Seeded: the same bytes each time. What is to be predicted follows from
the other columns, mostly smoothly, with noise of the size that such tables have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas

FIRST = ("Anna", "Bruno", "Clara", "David", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kenji", "Lucia")
LAST = ("Abbott", "Braund", "Cumings", "Dooley", "Ekström", "Futrelle", "Garside", "Heikkinen", "Ilett", "Johnson", "Kelly")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
Tables = dict[str, tuple[Callable[..., None], str]]


def drawn(rng: np.random.Generator, score: np.ndarray) -> np.ndarray:
    """True with the probability that a score of log odds says, for each row."""
    return rng.random(len(score)) < 1 / (1 + np.exp(-score))


def some(rng: np.random.Generator, values: Sequence[object], share: float, other: object) -> list[object]:
    """The values, a share of them gone, with `other` in their place."""
    return [other if gone else value for value, gone in zip(values, rng.random(len(values)) < share, strict=True)]


def comma(values: np.ndarray, digits: int) -> list[str]:
    return [f"{value:.{digits}f}".replace(".", ",") for value in values]


def titanic(path: Path, rng: np.random.Generator, n: int = 891) -> None:
    """Names with commas in quotes, cabins that most lack, tickets of all kinds, ages with gaps, a number for each row."""
    grade, woman = rng.choice([1, 2, 3], n, p=[0.24, 0.21, 0.55]), rng.random(n) < 0.35
    age = np.clip(rng.normal(38 - 4 * grade, 13, n), 0.4, 80).round()
    siblings, parents = rng.choice([0, 1, 2, 4], n, p=[0.68, 0.23, 0.05, 0.04]), rng.choice([0, 1, 2], n, p=[0.76, 0.13, 0.11])
    fare = (np.exp(rng.normal(4.9 - 0.8 * grade, 0.5, n)) * (1 + 0.5 * siblings)).round(4)
    alive = drawn(rng, 1.1 + 2.6 * woman - 0.9 * (grade - 1) - 0.03 * age - 0.4 * (siblings > 2) + 1.5 * (age < 10) - 0.9)
    title = np.where(woman, np.where(age > 25, "Mrs.", "Miss."), np.where(age < 14, "Master.", "Mr."))
    names = [f"{rng.choice(LAST)}, {t} {rng.choice(FIRST)} {rng.choice(FIRST)}" for t in title]
    tickets = [f"{rng.choice(['', '', 'A/5 ', 'PC ', 'STON/O2. '])}{rng.integers(2000, 380000)}" for _ in range(n)]
    cabins = [f"{rng.choice(list('ABCDE'))}{rng.integers(2, 130)}" if rng.random() < 0.6 / g**2 else None for g in grade]
    pandas.DataFrame(
        {
            "PassengerId": np.arange(1, n + 1),
            "Survived": alive.astype(int),
            "Pclass": grade,
            "Name": names,
            "Sex": np.where(woman, "female", "male"),
            "Age": some(rng, age, 0.2, None),
            "SibSp": siblings,
            "Parch": parents,
            "Ticket": tickets,
            "Fare": fare,
            "Cabin": cabins,
            "Embarked": some(rng, rng.choice(list("SCQ"), n), 0.003, None),
        }
    ).to_csv(path, index=False)


def adult(path: Path, rng: np.random.Generator, n: int = 2000) -> None:
    """No header, a blank behind each comma, ` ?` where nothing is known, a blank line at the end."""
    age, hours = rng.integers(17, 80, n), np.clip(rng.normal(40, 11, n), 5, 99).round().astype(int)
    years = np.clip(rng.normal(10, 2.5, n), 1, 16).round().astype(int)
    schools = ("Preschool", "7th-8th", "HS-grad", "Some-college", "Bachelors", "Masters", "Doctorate")
    married, woman = rng.random(n) < 0.25 + 0.5 * (age > 30), rng.random(n) < 0.33
    gain = np.where(rng.random(n) < 0.08, rng.integers(1000, 15000, n), 0)
    works = rng.choice(["Private", "Self-emp-inc", "Federal-gov", "Local-gov"], n, p=[0.75, 0.08, 0.07, 0.1])
    jobs = rng.choice(["Exec-managerial", "Sales", "Craft-repair", "Other-service", "Prof-specialty"], n)
    score = -4.4 + 0.33 * (years - 9) + 0.03 * np.minimum(age, 55) + 0.02 * hours + 1.8 * married + 3.0 * (gain > 5000)
    rich = drawn(rng, score + 0.6 * np.isin(jobs, ["Exec-managerial", "Prof-specialty"]) - 0.3 * woman)
    columns = [
        age,
        some(rng, works, 0.06, "?"),
        rng.integers(20_000, 500_000, n),
        [schools[min(y // 3 + 1, 6)] for y in years],
        years,
        np.where(married, "Married-civ-spouse", "Never-married"),
        some(rng, jobs, 0.06, "?"),
        np.where(woman, "Female", "Male"),
        gain,
        np.where(gain == 0, rng.choice([0, 1900], n, p=[0.95, 0.05]), 0),
        hours,
        some(rng, ["United-States"] * n, 0.02, "?"),
        np.where(rich, ">50K", "<=50K"),
    ]
    path.write_text("".join(", ".join(map(str, row)) + "\n" for row in zip(*columns, strict=True)) + "\n")


def ames(path: Path, rng: np.random.Generator, n: int = 1460) -> None:
    """NA says `none of it` in a dozen columns of words, and `not known` among numbers; grades as letters; codes as numbers."""
    area, quality = (
        np.exp(rng.normal(7.25, 0.33, n)).round().astype(int),
        np.clip(rng.normal(6, 1.4, n), 1, 10).round().astype(int),
    )
    built, front = rng.integers(1890, 2010, n), rng.normal(70, 22, n).clip(21, 200).round()
    places = ("NAmes", "CollgCr", "OldTown", "Edwards", "Somerst", "Gilbert", "NridgHt", "Sawyer", "BrkSide", "Mitchel")
    near, worth = rng.choice(places, n), dict(zip(places, np.linspace(-0.25, 0.25, len(places)), strict=True))
    letters = np.array(["Po", "Fa", "TA", "Gd", "Ex"])
    kitchen = letters[np.clip((quality - 3) // 2 + rng.integers(0, 2, n), 0, 4)]
    fire = np.where(rng.random(n) < 0.47, "NA", rng.choice(letters, n))
    cars = rng.choice([0, 1, 2, 3], n, p=[0.06, 0.25, 0.56, 0.13])
    garage = np.where(cars == 0, "NA", rng.choice(["Attchd", "Detchd", "BuiltIn"], n))
    log = 7.2 + 0.55 * np.log(area) + 0.09 * quality + 0.002 * (built - 1950) + 0.05 * cars + [worth[one] for one in near]
    log += 0.05 * (fire != "NA") + 0.0008 * front + 0.06 * (kitchen == "Ex")
    pandas.DataFrame(
        {
            "Id": np.arange(1, n + 1),
            "MSSubClass": rng.choice([20, 30, 50, 60, 120], n),
            "LotFrontage": some(rng, front.astype(int), 0.18, "NA"),
            "Alley": rng.choice(["NA", "Grvl", "Pave"], n, p=[0.94, 0.03, 0.03]),
            "Neighborhood": near,
            "OverallQual": quality,
            "YearBuilt": built,
            "GrLivArea": area,
            "KitchenQual": kitchen,
            "FireplaceQu": fire,
            "GarageType": garage,
            "GarageCars": cars,
            "GarageYrBlt": np.where(cars == 0, "NA", (built + rng.integers(0, 9, n)).astype(str)),
            "PoolQC": rng.choice(["NA", "Gd"], n, p=[0.995, 0.005]),
            "Fence": rng.choice(["NA", "MnPrv", "GdWo"], n, p=[0.8, 0.14, 0.06]),
            "SaleType": rng.choice(["WD", "New", "COD"], n, p=[0.87, 0.09, 0.04]),
            "SalePrice": np.exp(log + rng.normal(0, 0.11, n)).round(-2).astype(int),
        }
    ).to_csv(path, index=False)


def wine(path: Path, rng: np.random.Generator, n: int = 1599) -> None:
    """Semicolons, decimals after a comma, names in quotes; marks from 3 to 8."""
    alcohol, acid = rng.normal(10.4, 1.0, n), rng.gamma(9, 0.06, n)
    sulphates, sugar = rng.gamma(16, 0.041, n), rng.gamma(4, 0.6, n)
    free = rng.gamma(3, 5, n).round()
    total = (free * rng.uniform(1.5, 4, n)).round()
    density = 0.9967 - 0.0012 * (alcohol - 10.4) + 0.0004 * (sugar - 2.4) + rng.normal(0, 0.0007, n)
    mark = 5.6 + 0.32 * (alcohol - 10.4) - 1.3 * (acid - 0.53) + 1.1 * np.tanh(3 * (sulphates - 0.65)) - 0.004 * (total - 40)
    mark = np.clip(np.round(mark + rng.normal(0, 0.6, n)), 3, 8).astype(int)
    names = (
        "volatile acidity",
        "residual sugar",
        "free sulfur dioxide",
        "total sulfur dioxide",
        "density",
        "sulphates",
        "alcohol",
    )
    cells = [
        comma(acid, 3),
        comma(sugar, 1),
        comma(free, 0),
        comma(total, 0),
        comma(density, 5),
        comma(sulphates, 2),
        comma(alcohol, 1),
    ]
    head = ";".join(f'"{name}"' for name in (*names, "quality"))
    lines = [";".join(map(str, row)) for row in zip(*cells, mark, strict=True)]
    path.write_text("\n".join([head, *lines]) + "\n")


def colic(path: Path, rng: np.random.Generator, n: int = 368) -> None:
    """A third of all cells is `?`; codes for words; rows whose outcome is `?`; a number of the hospital."""
    pain, pulse = rng.choice([1, 2, 3, 4, 5], n), np.clip(rng.normal(70, 26, n), 30, 180).round().astype(int)
    cells, protein = (
        np.clip(rng.normal(46, 10, n), 23, 75).round(),
        np.where(rng.random(n) < 0.5, rng.normal(7, 1, n), rng.normal(65, 8, n)),
    )
    surgery, age = rng.choice([1, 2], n), rng.choice([1, 9], n, p=[0.92, 0.08])
    warm, colour = np.clip(rng.normal(38.2, 0.7, n), 35, 41).round(1), rng.choice([1, 2, 3, 4, 5, 6], n)
    score = 3.9 - 0.035 * pulse - 0.5 * (pain - 3) - 0.06 * (cells - 46) + 0.8 * (surgery == 2) - 0.5 * (colour > 3) - 0.5
    lived = np.where(drawn(rng, score), "lived", "died")
    columns = {
        "surgery": some(rng, surgery, 0.01, "?"),
        "Age": age,
        "hospital_number": rng.integers(518476, 5305629, n),
        "rectal_temperature": some(rng, warm, 0.2, "?"),
        "pulse": some(rng, pulse, 0.08, "?"),
        "respiratory_rate": some(rng, rng.integers(8, 96, n), 0.19, "?"),
        "mucous_membranes": some(rng, colour, 0.16, "?"),
        "pain": some(rng, pain, 0.18, "?"),
        "packed_cell_volume": some(rng, cells.astype(int), 0.1, "?"),
        "total_protein": some(rng, protein.round(1), 0.11, "?"),
        "abdomo_appearance": some(rng, rng.choice([1, 2, 3], n), 0.55, "?"),
        "nasogastric_reflux_PH": some(rng, rng.uniform(1, 7.5, n).round(1), 0.8, "?"),
        "outcome": some(rng, lived, 0.03, "?"),
    }
    pandas.DataFrame(columns).to_csv(path, index=False)


def telco(path: Path, rng: np.random.Generator, n: int = 1800) -> None:
    """A blank for the total charges of new customers; Yes, No and `No internet service`; ids of digits and letters."""
    months, online = rng.integers(0, 73, n), rng.choice(["DSL", "Fiber optic", "No"], n, p=[0.34, 0.44, 0.22])
    contract = rng.choice(["Month-to-month", "One year", "Two year"], n, p=[0.55, 0.21, 0.24])
    monthly = (20 + 25 * (online == "DSL") + 55 * (online == "Fiber optic") + rng.normal(0, 6, n)).clip(18.25).round(2)
    total = (monthly * months * rng.uniform(0.95, 1.05, n)).round(2)
    score = (
        0.4 - 0.045 * months - 1.0 * (contract == "One year") - 2.0 * (contract == "Two year") + 0.9 * (online == "Fiber optic")
    )
    help_, paper = np.where(online == "No", "No internet service", rng.choice(["Yes", "No"], n)), rng.choice(["Yes", "No"], n)
    left = drawn(rng, score - 0.7 * (help_ == "Yes") + 0.3 * (paper == "Yes"))
    pandas.DataFrame(
        {
            "customerID": [
                f"{rng.integers(0, 10000):04d}-{''.join(rng.choice(list('ABCDEFGHIKLMNOPQRSTUVXYZ'), 5))}" for _ in range(n)
            ],
            "gender": rng.choice(["Female", "Male"], n),
            "SeniorCitizen": rng.choice([0, 1], n, p=[0.84, 0.16]),
            "Partner": rng.choice(["Yes", "No"], n),
            "tenure": months,
            "InternetService": online,
            "TechSupport": help_,
            "Contract": contract,
            "PaperlessBilling": paper,
            "PaymentMethod": rng.choice(["Electronic check", "Mailed check", "Bank transfer (automatic)"], n),
            "MonthlyCharges": monthly,
            "TotalCharges": [" " if m == 0 else str(t) for m, t in zip(months, total, strict=True)],
            "Churn": np.where(left, "Yes", "No"),
        }
    ).to_csv(path, index=False, sep="\t")


def air(path: Path, rng: np.random.Generator, n: int = 1500) -> None:
    """Semicolons, decimal commas, -200 where a sensor was off (the target's too), `;;` behind each row, 60 rows of them alone."""
    hours = np.arange(n)
    moments = pandas.Timestamp("2004-03-10 18:00") + pandas.to_timedelta(hours, unit="h")
    busy = 1.6 + np.sin((moments.hour - 8) / 24 * 2 * np.pi) + 0.9 * np.sin((moments.hour - 4) / 12 * 2 * np.pi)
    smog = np.clip(busy + np.convolve(rng.normal(0, 0.45, n + 11), np.ones(12) / 3.5, "valid"), 0.1, None).to_numpy()
    heat = 14 + 6 * np.sin((moments.hour - 9) / 24 * 2 * np.pi).to_numpy() + rng.normal(0, 2, n)
    oxide = 700 + 260 * smog + 8 * heat + rng.normal(0, 90, n)
    benzene = np.clip(2.2 * smog**1.3 + rng.normal(0, 0.7, n), 0.1, None)
    carbon = np.clip(0.55 * smog + 0.17 * benzene + 0.01 * (20 - heat) + rng.normal(0, 0.25, n), 0.1, None)
    columns = {
        "Date": [f"{moment:%d/%m/%Y}" for moment in moments],
        "Time": [f"{moment:%H.%M.%S}" for moment in moments],
        "CO(GT)": some(rng, comma(carbon, 1), 0.15, "-200"),
        "PT08.S1(CO)": some(rng, comma(oxide, 0), 0.04, "-200"),
        "NMHC(GT)": some(rng, comma(150 * smog + rng.normal(0, 60, n) + 60, 0), 0.85, "-200"),
        "C6H6(GT)": some(rng, comma(benzene, 1), 0.04, "-200,0"),
        "T": some(rng, comma(heat, 1), 0.04, "-200"),
        "RH": some(rng, comma(rng.uniform(15, 85, n), 1), 0.04, "-200"),
    }
    lines = [";".join(row) + ";;" for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join([";".join(columns) + ";;", *lines, *[";" * (len(columns) + 1)] * 60]) + "\n")


def salaries(path: Path, rng: np.random.Generator, n: int = 1500) -> None:
    """Dollars with commas between thousands, in quotes; dates in three spellings; names; a bonus in brackets if paid back."""
    years, teams = rng.integers(0, 35, n), ("POLICE", "FIRE", "WATER MGMNT", "LIBRARY", "LAW", "AVIATION")
    team, full = rng.choice(teams, n), rng.random(n) < 0.85
    day = pandas.Timestamp("2016-06-30") - pandas.to_timedelta(years * 365 + rng.integers(0, 365, n), unit="D")
    spelled = [
        (f"{d:%m/%d/%Y}", f"{d:%Y-%m-%d}", f"{MONTHS[d.month - 1]} {d.day}, {d.year}")[k]
        for d, k in zip(day, rng.choice(3, n, p=[0.6, 0.25, 0.15]), strict=True)
    ]
    bonus = rng.normal(900, 1500, n).round()
    base = {name: 52_000 + 9_000 * place for place, name in enumerate(teams)}
    pay = np.array([base[one] for one in team]) + 1_400 * years - 16 * years**2 + 2.0 * bonus - 24_000 * ~full
    pandas.DataFrame(
        {
            "Name": [f"{rng.choice(LAST)}, {rng.choice(FIRST)} {rng.choice(list('ABCDEF'))}".upper() for _ in range(n)],
            "Department": team,
            "Full or Part-Time": np.where(full, "F", "P"),
            "Hired": spelled,
            "Bonus": [f"(${-b:,.2f})" if b < 0 else f"${b:,.2f}" for b in bonus],
            "Annual Salary": [f"${p:,.0f}" for p in np.clip(pay + rng.normal(0, 5_000, n), 900, None)],
        }
    ).to_csv(path, index=False)


def bank(path: Path, rng: np.random.Generator, n: int = 2000) -> None:
    """Semicolons, every word in quotes, `unknown` for what is not known, 999 days since a call that there was not."""
    jobs = ("admin.", "blue-collar", "technician", "services", "management", "retired", "student", "unknown")
    job, age = rng.choice(jobs, n), np.clip(rng.normal(40, 10, n), 18, 90).round().astype(int)
    before = rng.random(n) < 0.12
    days, calls = np.where(before, rng.integers(1, 20, n), 999), rng.geometric(0.4, n)
    rate, long = rng.choice([0.7, 1.3, 4.1, 4.9], n), rng.gamma(1.6, 160, n).round().astype(int)
    score = -2.2 + 0.0042 * long - 0.42 * (rate - 2.5) + 1.7 * before - 0.03 * days * before - 0.1 * calls
    yes = drawn(rng, score + 0.6 * np.isin(job, ["retired", "student"]))
    frame = pandas.DataFrame(
        {
            "age": age,
            "job": job,
            "marital": rng.choice(["married", "single", "divorced", "unknown"], n, p=[0.6, 0.28, 0.11, 0.01]),
            "education": some(rng, rng.choice(["basic.9y", "high.school", "university.degree"], n), 0.05, "unknown"),
            "default": rng.choice(["no", "unknown"], n, p=[0.8, 0.2]),
            "housing": rng.choice(["yes", "no", "unknown"], n, p=[0.52, 0.45, 0.03]),
            "contact": rng.choice(["cellular", "telephone"], n),
            "day_of_week": rng.choice(["mon", "tue", "wed", "thu", "fri"], n),
            "duration": long,
            "campaign": calls,
            "pdays": days,
            "euribor3m": rate,
            "y": np.where(yes, "yes", "no"),
        }
    )
    frame.to_csv(path, sep=";", index=False, quoting=2)


def bikes(path: Path, rng: np.random.Generator, n: int = 2400) -> None:
    """Parquet with moments, shuffled, so that pandas writes its index too; codes for seasons; no wind where none was measured."""
    moments = pandas.Timestamp("2011-01-01") + pandas.to_timedelta(np.sort(rng.choice(24 * 364, n, replace=False)), unit="h")
    hour, free = moments.hour.to_numpy(), (moments.day_of_week > 4).astype(float)
    warm = 14 - 12 * np.cos(moments.day_of_year.to_numpy() / 365 * 2 * np.pi) + rng.normal(0, 3, n)
    rush = np.exp(-((hour - 8) ** 2) / 3) + np.exp(-((hour - 17.5) ** 2) / 5)
    level = 2.2 + 0.055 * warm + (1 - free) * 1.6 * rush + 1.5 * np.exp(-((hour - 14) ** 2) / 30)
    wet = rng.choice([1, 2, 3], n, p=[0.66, 0.26, 0.08])
    frame = pandas.DataFrame(
        {
            "datetime": moments,
            "season": moments.quarter,
            "holiday": (rng.random(n) < 0.03).astype(int),
            "workingday": (free == 0).astype(int),
            "weather": wet,
            "temp": warm.round(2),
            "humidity": rng.integers(20, 100, n),
            "windspeed": np.where(rng.random(n) < 0.12, 0, rng.gamma(4, 3.4, n).round(4)),
            "count": np.exp(level - 0.35 * (wet - 1) + rng.normal(0, 0.18, n)).round().astype(int),
        }
    )
    frame.sample(frac=1, random_state=0).to_parquet(path)


# file -> how it is made, and what is predicted.
TABLES: Tables = {
    "titanic.csv": (titanic, "Survived"),
    "adult.csv": (adult, "column_13"),
    "ames.csv": (ames, "SalePrice"),
    "wine.csv": (wine, "quality"),
    "colic.csv": (colic, "outcome"),
    "telco.tsv": (telco, "Churn"),
    "air.csv": (air, "CO(GT)"),
    "salaries.csv": (salaries, "Annual Salary"),
    "bank.csv": (bank, "y"),
    "bikes.parquet": (bikes, "count"),
}
OFF = {"missing": -200}
# file -> what is said by hand: a decision a key of the spec.
DECISIONS: dict[str, dict[str, object]] = {
    "titanic.csv": {"data.columns": {"PassengerId": "ignore"}},
    "adult.csv": {"data.missing.markers": ["", "?"]},
    "ames.csv": {"data.missing.markers": ["", "NA"], "data.columns": {"Id": "ignore"}},
    "wine.csv": {"data.format.decimal": "comma", "data.task": "regression"},
    "colic.csv": {
        "data.missing.markers": ["", "?"],
        "data.missing.target": "drop",
        "data.columns": {"hospital_number": "ignore"},
    },
    "air.csv": {
        "data.format.decimal": "comma",
        "data.missing.target": "drop",
        "data.numbers": {"*(GT)": OFF, "PT08*": OFF, "T": OFF, "RH": OFF},
    },
    "bank.csv": {"data.numbers": {"pdays": {"missing": 999}}},
    "bikes.parquet": {"data.dates": {"datetime": {"parts": ["hour", "weekday", "month"]}}},
}


def write(folder: Path, name: str, tables: Tables = TABLES, seed: int = 2026) -> Path:
    """One of the tables."""
    tables[name][0](folder / name, np.random.default_rng([seed, list(tables).index(name)]))
    return folder / name


if __name__ == "__main__":
    for name in TABLES:
        print(write(Path(sys.argv[1]), name))
