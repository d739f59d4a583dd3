"""Ten further tables with the dirt of well-known public ones, written before the code that reads them was looked at.

`python tests/held_out_tables.py FOLDER` writes them. Form, seeds and noise as in dirty_tables.py; no row is from a real file.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas
from dirty_tables import MONTHS, Tables, comma, drawn, some, write


def before(last: str, days: np.ndarray) -> list[pandas.Timestamp]:
    return list(pandas.Timestamp(last) - pandas.to_timedelta(days, unit="D"))


def month_years(moments: Iterable[pandas.Timestamp]) -> list[str]:
    return [f"{MONTHS[d.month - 1]}-{d.year}" for d in moments]


def with_repeats(rng: np.random.Generator, columns: dict[str, object], share: float) -> pandas.DataFrame:
    """The rows, a share of them once more, somewhere else in the file."""
    frame = pandas.DataFrame(columns)
    again = frame.sample(frac=share, random_state=int(rng.integers(1000)))
    return pandas.concat([frame, again]).sample(frac=1, random_state=int(rng.integers(1000)))


def play(path: Path, rng: np.random.Generator, n: int = 1700) -> None:
    """Google Play store: `10,000+`, `19M`, `201k`, `Varies with device`, `$4.99`, `January 7, 2018`, versions, NaN in the
    target; some rows twice; one row that lacks its second cell, so that all others are one column too far left."""
    kinds = np.array(["GAME", "DATING", "TOOLS", "BUSINESS", "FAMILY", "MEDICAL", "HEALTH_AND_FITNESS", "ART_AND_DESIGN"])
    genres = ("Arcade", "Dating", "Tools", "Business", "Casual;Brain Games", "Medical", "Health & Fitness", "Art & Design")
    kind, installs = rng.integers(0, 8, n), 10 ** rng.integers(2, 9, n) * rng.choice([1, 5], n)
    reviews = (installs * np.exp(rng.normal(-4.0, 0.9, n))).round().astype(int)
    size, age = rng.gamma(1.6, 13, n).clip(0.05, 99), rng.exponential(330, n).clip(0, 2900).round()
    price = np.where(rng.random(n) < 0.14, rng.choice([0.99, 1.99, 2.99, 4.99, 9.99, 14.99], n), 0)
    rating = 4.0 + 0.08 * np.log10(installs) + 0.45 * np.log10((reviews + 1) / installs) - 0.0004 * age + 0.006 * size
    rating += 0.5 + 0.03 * price + 0.07 * (kind - 3.5) + rng.normal(0, 0.22, n)
    words, ends = ("Photo", "Candy", "Words", "Dr.", "Zombie"), (" Lite", ", Quick & Easy", " – Pro", ' "HD"', "", "")
    varies, versions = rng.random(n) < 0.16, [f"{a}.{b}" for a, b in rng.integers(1, 20, (n, 2))]
    columns = {
        "App": [f"{rng.choice(words)} {rng.choice(words)} {rng.integers(1, 99)}{rng.choice(ends)}" for _ in range(n)],
        "Category": kinds[kind],
        "Rating": some(rng, [f"{r:.1f}" for r in rating.clip(1, 5)], 0.1, "NaN"),
        "Reviews": reviews,
        "Size": np.where(varies, "Varies with device", [f"{s:.2g}M" if s >= 1 else f"{1000 * s:.0f}k" for s in size]),
        "Installs": [f"{i:,}+" for i in installs],
        "Type": some(rng, np.where(price > 0, "Paid", "Free"), 0.001, "NaN"),
        "Price": [f"${p}" if p else "0" for p in price],
        "Content Rating": rng.choice(["Everyone", "Teen", "Mature 17+", "Everyone 10+"], n, p=[0.78, 0.12, 0.06, 0.04]),
        "Genres": np.array(genres)[kind],
        "Last Updated": [f"{d:%B} {d.day}, {d.year}" for d in before("2018-08-08", age)],
        "Current Ver": some(rng, versions, 0.14, "Varies with device"),
        "Android Ver": np.where(varies, "Varies with device", rng.choice(["4.1 and up", "4.0.3 and up", "5.0 and up"], n)),
    }
    lines = with_repeats(rng, columns, 0.04).to_csv(index=False).splitlines()
    lines.insert(1 + 2 * n // 3, 'Touch Wi-Fi Frame,1.9,19,3.0M,"1,000+",Free,0,Everyone,,"February 11, 2018",1.0.19,4.0 and up')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def loans(path: Path, rng: np.random.Generator, n: int = 1500) -> None:
    """Lending Club: a line of prose above the header and two below the rows; `" 36 months"`, `" 10.65%"`, `< 1 year`, `n/a`,
    `Jan-1985`, `860xx`; every cell in quotes, columns without a single value, the last payment, known only after the end."""
    rate, long = rng.normal(12.2, 3.5, n).clip(5.42, 24.59), rng.random(n) < 0.27
    income, amount, years = np.exp(rng.normal(11.0, 0.5, n)).round(-2), rng.integers(20, 1400, n) * 25, rng.integers(0, 12, n)
    used, debts, asked = rng.beta(1.6, 1.6, n) * 99.9, rng.uniform(0, 30, n), rng.poisson(0.9, n)
    issued, opened = before("2011-12-31", rng.integers(0, 700, n)), before("2008-01-01", rng.gamma(4, 1000, n))
    score = 0.23 * (rate - 12.2) + 1.1 * long - 1.3 * np.log(income / 60_000) + 0.022 * (used - 50) + 0.05 * (debts - 15)
    bad = drawn(rng, score - 1.0 + 0.35 * asked - 0.09 * (years - 5) + 0.00004 * (amount - 15_000))
    worked = ("< 1 year", "1 year", *(f"{y} years" for y in range(2, 10)), "10+ years", "n/a")
    ended = [d + pandas.Timedelta(days=30 * k) for d, k in zip(issued, rng.integers(np.where(bad, 2, 9), 37), strict=True)]
    columns = {
        **dict.fromkeys(("id", "member_id"), [""] * n),
        "loan_amnt": amount,
        "term": np.where(long, " 60 months", " 36 months"),
        "int_rate": [f" {r:5.2f}%" for r in rate],
        "sub_grade": [f"{'ABCDEFG'[g // 5]}{g % 5 + 1}" for g in ((rate - 5) // 0.6).clip(0, 34).astype(int)],
        "emp_title": some(rng, rng.choice(["Ryder", "US Army", "self-employed", "Bank of America"], n), 0.06, ""),
        "emp_length": [worked[y] for y in years],
        "home_ownership": rng.choice(["RENT", "MORTGAGE", "OWN", "OTHER"], n, p=[0.48, 0.44, 0.075, 0.005]),
        "annual_inc": income,
        "issue_d": month_years(issued),
        "loan_status": np.where(bad, "Charged Off", "Fully Paid"),
        **dict.fromkeys(("url", "annual_inc_joint"), [""] * n),
        "desc": some(rng, [f"  Borrower added on {d:%m/%d/%y} > To pay off cards, and a car.<br>" for d in issued], 0.4, ""),
        "zip_code": [f"{z}xx" for z in rng.integers(100, 999, n)],
        "dti": debts.round(2),
        "earliest_cr_line": month_years(opened),
        "inq_last_6mths": asked,
        "revol_util": some(rng, [f"{u:.1f}%" for u in used], 0.002, ""),
        "last_pymnt_d": month_years(ended),
    }
    top = "Notes offered by Prospectus (https://www.lendingclub.com/info/prospectus.action)\n"
    foot = f"\nTotal amount funded in policy code 1: {amount.sum()}\nTotal amount funded in policy code 2: 0\n"
    path.write_text(top + pandas.DataFrame(columns).to_csv(index=False, quoting=csv.QUOTE_ALL) + foot)


def listings(path: Path, rng: np.random.Generator, n: int = 1300) -> None:
    """Inside Airbnb: `$1,250.00`, `97%`, `N/A`, t and f (the target's too, with gaps), lists in cells, `1.5 shared baths`, dates,
    texts with line ends and HTML in quotes, columns of nothing, ids of 18 digits, no scores where there are no reviews."""
    guests, reviews = rng.choice([1, 2, 3, 4, 6, 8], n, p=[0.1, 0.4, 0.12, 0.2, 0.12, 0.06]), rng.negative_binomial(0.7, 0.02, n)
    answers, accepts = (100 - rng.exponential([[9], [18]], (2, n))).clip(0).round()
    stars, price = (5 - rng.gamma(2, 0.13, n)).clip(1).round(2), np.exp(rng.normal(4.3, 0.5, n) + 0.12 * guests).round()
    started, last = before("2022-03-09", rng.integers(100, 4500, n)), before("2022-03-09", rng.integers(1, 300, n))
    monthly, silent, private = (reviews / rng.uniform(10, 60, n)).round(2), rng.random(n) < 0.17, rng.random(n) < 0.35
    things = np.array(["Wifi", "Kitchen", "Iron", 'TV 32\\"', "Long term stays"])
    kits = [things[has] for has in rng.random((n, 5)) < 0.6]
    score = 3.2 * (stars - 4.74) * (reviews > 0) + 0.09 * (answers - 92) + 0.035 * (accepts - 82) - 1.6 * (reviews == 0)
    score += 0.45 * np.log1p(monthly) + 0.6 * (np.log(price) - 4.7) + 0.45 * (np.array([len(kit) for kit in kits]) - 3)
    text = "Bright flat, 5 min from the station.<br /><br /><b>The space</b><br />{} guests\n\nNo smoking, no parties"
    baths = [f"{b} {'shared ' * p}baths" for b, p in zip(rng.choice(["1", "1.5", "2"], n), private.tolist(), strict=True)]
    columns = {
        "id": rng.integers(10**15, 6 * 10**17, n),
        "name": [f"{rng.choice(['Cozy', 'Sunny', '★ Central', 'Quiet, big'])} loft" for _ in range(n)],
        "description": some(rng, [text.format(g) for g in guests], 0.03, ""),
        "host_since": [f"{d:%Y-%m-%d}" for d in started],
        "host_response_time": np.where(silent, "N/A", rng.choice(["within an hour", "within a day", "a few days or more"], n)),
        "host_response_rate": np.where(silent, "N/A", [f"{a:.0f}%" for a in answers]),
        "host_acceptance_rate": some(rng, [f"{a:.0f}%" for a in accepts], 0.12, "N/A"),
        "host_is_superhost": some(rng, np.where(drawn(rng, score - 0.3), "t", "f"), 0.01, ""),
        "neighbourhood_cleansed": rng.choice(["Mitte", "Pankow", "Neukölln", "Charlottenburg-Wilm."], n),
        **dict.fromkeys(("neighbourhood_group_cleansed", "bathrooms", "calendar_updated"), [""] * n),
        "room_type": np.where(private, "Private room", "Entire home/apt"),
        "accommodates": guests,
        "bathrooms_text": some(rng, baths, 0.02, "Half-bath"),
        "amenities": ["[" + ", ".join(f'"{thing}"' for thing in kit) + "]" for kit in kits],
        "price": [f"${p:,.2f}" for p in price],
        "has_availability": ["t"] * n,
        "number_of_reviews": reviews,
        "last_review": np.where(reviews > 0, [f"{d:%Y-%m-%d}" for d in last], ""),
        "review_scores_rating": np.where(reviews > 0, stars.astype(str), ""),
        "license": some(rng, [f"{k:02d}/Z/RA/{v:06d}" for k, v in rng.integers(1, 13, (n, 2))], 0.6, ""),
        "reviews_per_month": np.where(reviews > 0, monthly.astype(str), ""),
    }
    pandas.DataFrame(columns).to_csv(path, index=False)


def cars(path: Path, rng: np.random.Generator, n: int = 1500) -> None:
    """Used cars of India: `23.4 kmpl`, `17.3 km/kg`, `1248 CC`, `74 bhp`, one ` bhp` alone, torque in four spellings; 0.0 kmpl
    where it isn't known; the same rows lack all that is technical; a tenth of the rows twice."""
    makes = {"Maruti": -60, "Hyundai": 0, "Tata": -70, "Mahindra": 30, "Honda": 40, "Toyota": 160, "Skoda": 80}
    make, year = rng.choice(list(makes), n), (2020 - rng.gamma(3.2, 1.9, n)).clip(1996).round().astype(int)
    fuel = rng.choice(["Diesel", "Petrol", "CNG", "LPG"], n, p=[0.53, 0.44, 0.02, 0.01])
    engine = rng.choice([796, 998, 1197, 1248, 1396, 1498, 1968, 2179, 2494], n)
    power = (0.058 * engine + 12 + rng.normal(0, 9, n)).clip(34).round(2)
    mileage = (30.5 - 0.0065 * engine + 2.5 * (fuel == "Diesel") + rng.normal(0, 1.2, n)).round(2)
    torque, turns = (1.9 * power + 60 * (fuel == "Diesel") + rng.normal(0, 8, n)).round(), rng.choice([1750, 2000, 4000], n)
    driven = (9_000 * (2020.5 - year) * np.exp(rng.normal(0, 0.4, n))).round(-2).clip(1000).astype(int)
    owner, automatic = rng.choice(4, n, p=[0.65, 0.26, 0.07, 0.02]), rng.random(n) < 0.14
    worth = 480 + 6.5 * (power - 90) + 44 * (year - 2014) - 0.0012 * driven + 150 * automatic - 45 * owner + 0.6 * (torque - 190)
    worth = worth + [makes[m] for m in make] + 5 * (mileage - 22) + rng.normal(0, 75, n)
    worth = 90 * np.log1p(np.exp(worth / 90)) + 0.00018 * worth.clip(0) ** 2 + 30
    forms = ("{0:.0f}Nm@ {1}rpm", "{2:.1f}@ {1:,}(kgm@ rpm)", "{2:.1f} kgm at {1}-2750rpm", "{0:.0f} Nm at {1}rpm")
    chosen = rng.choice(forms, n, p=[0.6, 0.12, 0.08, 0.2]).tolist()
    unit, known = np.where(np.isin(fuel, ["CNG", "LPG"]), "km/kg", "kmpl"), rng.random(n) > 0.027
    columns = {
        "name": [f"{m} {rng.choice(['Swift VDI', 'Zest 1.4', 'City i-VTEC', 'XUV500 W8 2WD', 'i20 Sportz'])}" for m in make],
        "year": year,
        "selling_price": (worth * 1000).round(-3).astype(int),
        "km_driven": driven,
        "fuel": fuel,
        "seller_type": rng.choice(["Individual", "Dealer", "Trustmark Dealer"], n, p=[0.83, 0.14, 0.03]),
        "transmission": np.where(automatic, "Automatic", "Manual"),
        "owner": np.array(["First Owner", "Second Owner", "Third Owner", "Fourth & Above Owner"])[owner],
        "mileage": [f"{m} {u}" for m, u in zip(some(rng, mileage, 0.01, "0.0"), unit, strict=True)],
        "engine": [f"{e} CC" for e in engine],
        "max_power": [" bhp" if row == n // 2 else f"{p:g} bhp" for row, p in enumerate(power)],
        "torque": [form.format(t, r, t / 9.81) for form, t, r in zip(chosen, torque, turns, strict=True)],
        "seats": rng.choice([4, 5, 7, 8], n, p=[0.04, 0.8, 0.13, 0.03]).astype(str),
    }
    for name in ("mileage", "engine", "max_power", "torque", "seats"):
        columns[name] = np.where(known, columns[name], "")
    with_repeats(rng, columns, 0.1).to_csv(path, index=False)


def diabetes(path: Path, rng: np.random.Generator, n: int = 2000) -> None:
    """130 US hospitals: `?`, ages as `[70-80)`, a weight that is nearly always `?`, codes of diagnoses such as 428, 250.83 and
    V45, `None` as a word, numbers that are codes, constant columns, ids of patients that come again; three classes."""
    age, inside = rng.choice(10, n, p=[0.01, 0.01, 0.02, 0.04, 0.09, 0.17, 0.22, 0.25, 0.16, 0.03]), rng.poisson(0.9, n)
    urgent, outside, days, illnesses = rng.poisson(0.4, n), rng.poisson(0.4, n), rng.integers(1, 15, n), rng.integers(1, 10, n)
    drugs, codes = rng.poisson(9 + 0.9 * days), ["428", "414", "250.83", "V45", "786", "E888", "250.02", "401"]
    first, insulin = rng.choice(codes, n), rng.choice(["No", "Steady", "Up", "Down"], n, p=[0.46, 0.31, 0.11, 0.12])
    sugar = rng.choice(["None", ">8", "Norm", ">7"], n, p=[0.78, 0.1, 0.07, 0.05])
    home = rng.choice([1, 3, 6, 18, 25], n, p=[0.6, 0.16, 0.14, 0.06, 0.04])
    ill = 1.3 * inside + 0.8 * urgent + 0.5 * outside + 0.35 * (age - 6) + 0.2 * (illnesses - 5) + 1.2 * (first == "428")
    ill += 0.7 * np.isin(insulin, ["Up", "Down"]) + 0.8 * (sugar == ">8") + 0.5 * (home > 1) + 0.04 * (drugs - 15)
    level = ill + rng.logistic(0, 0.7, n)
    special = rng.choice(["InternalMedicine", "Emergency/Trauma", "Family/GeneralPractice", "Cardiology"], n)
    columns = {
        "encounter_id": np.sort(rng.choice(440_000_000, n, replace=False)),
        "patient_nbr": rng.choice(rng.integers(100, 190_000_000, 1500), n),
        "gender": some(rng, rng.choice(["Female", "Male"], n), 0.001, "Unknown/Invalid"),
        "age": [f"[{10 * a}-{10 * a + 10})" for a in age],
        "weight": some(rng, [f"[{25 * k}-{25 * k + 25})" for k in rng.integers(2, 6, n)], 0.97, "?"),
        "discharge_disposition_id": home,
        "time_in_hospital": days,
        "payer_code": some(rng, rng.choice(["MC", "HM", "SP", "BC"], n), 0.4, "?"),
        "medical_specialty": some(rng, special, 0.49, "?"),
        "num_medications": drugs,
        "number_outpatient": outside,
        "number_emergency": urgent,
        "number_inpatient": inside,
        "diag_1": some(rng, first, 0.005, "?"),
        "diag_2": rng.choice([*codes, "?"], n),
        "number_diagnoses": illnesses,
        "A1Cresult": sugar,
        "insulin": insulin,
        **dict.fromkeys(("examide", "citoglipton"), ["No"] * n),
        "change": rng.choice(["No", "Ch"], n),
        "readmitted": np.select([level < np.quantile(level, 0.5), level < np.quantile(level, 0.82)], ["NO", ">30"], "<30"),
    }
    pandas.DataFrame(columns).to_csv(path, index=False)


def weather(path: Path, rng: np.random.Generator, n: int = 2100) -> None:
    """NOAA's hourly weather: `38s` where a value is suspect, `T` for a trace, `*` and M for what is missing, `VRB`, `10.00V`,
    codes of the sky; each 25th row sums up the day and has no hour's values (nor the target), only it has the day's."""
    total, ticks = np.arange(n) % 25 == 24, np.arange(n) // 25 * 24 + np.arange(n) % 25
    moments = pandas.Timestamp("2016-01-01 00:51") + pandas.to_timedelta(ticks * 60 - 52 * total, unit="m")
    slow, sun = np.convolve(rng.normal(0, 1, n + 71), np.ones(72) / 8.5, "valid"), np.sin((ticks - 9) / 12 * np.pi)
    heat, gap = 45 + 9 * slow + 9 * sun + 0.006 * ticks, rng.gamma(2.4, 5.2, n) * (1 + 0.3 * sun)
    cover, codes = rng.integers(0, 5, n), ("CLR:00", "FEW:02 30", "SCT:04 55", "BKN:07 120", "OVC:08 15")
    wet = drawn(rng, -3.2 + 0.9 * cover - 0.12 * gap)
    sight = np.where(wet, rng.choice([2, 3, 5, 7], n), 10) * 1.0
    damp = 97 - 2.25 * gap + 0.018 * gap**2 + 4 * wet + 1.3 * (cover - 2) - 0.7 * (sight - 9) + rng.normal(0, 3.0, n)
    falls = ["" if not w else "T" if r < 0.01 else f"{r:.2f}" for w, r in zip(wet, rng.gamma(1, 0.06, n), strict=True)]

    def flagged(values: np.ndarray, digits: int, flag: str = "s", none: str = "*") -> list[object]:
        text = [f"{v:.{digits}f}{flag if k < 0.03 else ''}" for v, k in zip(values, rng.random(n), strict=True)]
        return some(rng, text, 0.015, none)

    columns = {
        "STATION": ["72505394728"] * n,
        "DATE": [f"{moment:%Y-%m-%dT%H:%M:%S}" for moment in moments],
        "REPORT_TYPE": np.where(total, "SOD  ", rng.choice(["FM-15", "FM-16", "FM-12"], n, p=[0.8, 0.12, 0.08])),
        "HourlyDewPointTemperature": flagged(heat - gap, 0),
        "HourlyDryBulbTemperature": flagged(heat, 0),
        "HourlyPrecipitation": [f"{f}s" if f > "" and k < 0.04 else f for f, k in zip(falls, rng.random(n), strict=True)],
        "HourlyPresentWeatherType": np.where(wet, rng.choice(["-RA:02 |RA |RA", "RA:02 BR:1 |RA |RA", "-SN:03 ||"], n), ""),
        "HourlyRelativeHumidity": some(rng, [f"{d:.0f}" for d in damp.clip(8, 100)], 0.004, "*"),
        "HourlySkyConditions": [codes[c] for c in cover],
        "HourlyStationPressure": flagged(29.8 - 0.05 * slow + rng.normal(0, 0.15, n), 2, none="M"),
        "HourlyVisibility": flagged(sight, 2, flag="V", none=""),
        "HourlyWindDirection": some(rng, [f"{10 * d:03d}" for d in rng.integers(0, 37, n)], 0.08, "VRB"),
        "HourlyWindSpeed": flagged(rng.gamma(3, 2.4, n), 0),
        "DailyAverageDryBulbTemperature": np.where(total, [f"{h:.0f}" for h in heat], ""),
        "DailyPrecipitation": np.where(total, rng.choice(["0.00", "T", "0.41", "0.07s"], n), ""),
    }
    frame = pandas.DataFrame(columns)
    frame.loc[total, [name for name in frame if name.startswith("Hourly")]] = ""
    frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL)


def mpg(path: Path, rng: np.random.Generator, n: int = 1000) -> None:
    """Auto MPG: columns of fixed width between blanks, the last one behind a tab and in quotes; no header, `?` for some powers,
    `3504.` for a whole number, names with blanks."""
    pistons, year = rng.choice([4, 6, 8], n, p=[0.51, 0.22, 0.27]), rng.integers(70, 83, n)
    space = (pistons * 42 - 65 + rng.normal(0, 22, n)).clip(68, 455).round()
    power = (0.36 * space + 35 + rng.normal(0, 11, n)).clip(46, 230).round()
    weight = (1500 + 7.2 * space + rng.normal(0, 210, n)).clip(1613, 5140).round().astype(int)
    quick, origin = (22 - 0.062 * power + rng.normal(0, 1.5, n)).clip(8, 24.8), np.where(pistons == 4, rng.integers(1, 4, n), 1)
    miles = 44.5 - 0.0062 * weight - 0.05 * (power - 100) + 0.72 * (year - 76) + 1.3 * (origin - 1) + rng.normal(0, 2.1, n)
    miles = 6 * np.log1p(np.exp((miles - 9) / 6)) + 9
    names = (("ford pinto (sw)", "plymouth 'cuda 340"), ("vw rabbit", "fiat 124b"), ("toyota corolla", "datsun 210"))
    named = [f"{rng.choice(names[o - 1])}{rng.choice(['', ' custom'])}" for o in origin]
    powers, weights = some(rng, [f"{p:.1f}" for p in power], 0.015, "?"), [f"{w}." for w in weight]
    rows = zip(miles, pistons, space, powers, weights, quick, year, origin, named, strict=True)
    lines = [f'{m:<7.1f}{c:<4}{s:<11.1f}{p:<11}{w:<11}{a:<7.1f}{y:<4}{o}\t"{name}"' for m, c, s, p, w, a, y, o, name in rows]
    path.write_text("\n".join(lines) + "\n")


def taxi(path: Path, rng: np.random.Generator, n: int = 2400) -> None:
    """New York's taxis in Parquet, a sample with pandas' index: moments, whole numbers with gaps, categories, a column without a
    type since it has no values; 99 for no rate code, distances of 0, years that cannot be, all amounts negative if paid back."""
    start = pandas.Timestamp("2021-01-01") + pandas.to_timedelta(rng.integers(0, 31 * 86400, n), unit="s")
    hour, miles = start.hour.to_numpy(), np.exp(rng.normal(0.75, 0.75, n)).round(2)
    pace = 4.2 + 1.8 * np.exp(-((hour - 16) ** 2) / 20) - 0.06 * miles.clip(0, 20)
    minutes = (miles * pace + 2.5) * np.exp(rng.normal(0, 0.22, n))
    extra = np.where((hour > 19) | (hour < 6), 0.5, np.where(hour > 15, 1.0, 0.0))
    code, tolls = rng.choice([1.0, 5.0, 99.0], n, p=[0.97, 0.02, 0.01]), np.where(drawn(rng, miles - 10), 6.12, 0)
    crowded, cash = np.where(rng.random(n) < 0.85, 2.5, 0), rng.random(n) < 0.3
    fare = 2.5 + 1.9 * miles + 0.38 * minutes + 9 * (code == 5)
    tip = np.where(cash, 0, (fare * rng.choice([0, 0.2, 0.25], n, p=[0.1, 0.6, 0.3])).round(2))
    back, unknown = np.where(rng.random(n) < 0.006, -1, 1), rng.random(n) < 0.05
    end = (start + pandas.to_timedelta(minutes, unit="m")).floor("s")
    wrong = pandas.to_timedelta(np.where(rng.random(n) < 0.001, 4383, 0), unit="D")
    columns = {
        "VendorID": rng.choice([1, 2], n, p=[0.3, 0.7]),
        "tpep_pickup_datetime": (start - wrong).astype("datetime64[us]"),
        "tpep_dropoff_datetime": (end - wrong).astype("datetime64[us]"),
        "passenger_count": pandas.array(some(rng, rng.choice([0, 1, 2, 5], n, p=[0.02, 0.8, 0.14, 0.04]), 0.05, None), "Int64"),
        "trip_distance": np.where(rng.random(n) < 0.01, 0, miles),
        "RatecodeID": np.where(unknown, np.nan, code),
        "store_and_fwd_flag": pandas.Categorical(np.where(unknown, None, rng.choice(["N", "Y"], n, p=[0.985, 0.015]))),
        "PULocationID": rng.integers(1, 266, n),
        "payment_type": np.where(unknown, 0, np.where(back < 0, 4, np.where(cash, 2, 1))),
        "extra": extra * back,
        "tip_amount": tip * back,
        "tolls_amount": tolls * back,
        "total_amount": (fare + extra + 0.8 + tip + tolls + crowded + rng.normal(0, 1.5, n)).round(2) * back,
        "congestion_surcharge": np.where(unknown, np.nan, crowded * back),
        "airport_fee": [None] * n,
    }
    pandas.DataFrame(columns, index=np.sort(rng.choice(1_369_769, n, replace=False))).to_parquet(path)


def income(path: Path, rng: np.random.Generator, n: int = 350) -> None:
    """Regional statistics of Germany, three years: Latin-1, CRLF, semicolons, decimal commas; three title lines, key columns
    without names, a row of units, keys such as 01001, `-`, `.`, `/` and `x` for no number, names set in, a footer."""
    state, city = rng.integers(1, 17, n), rng.random(n) < 0.3
    keys = [f"{s:02d}{4 * k % 68 + 51:03d}" for k, s in enumerate(state)]
    towns = [f"{rng.choice(['Neu', 'Groß', 'Süd', 'Alten'])}{rng.choice(['burg', 'münster', 'stadt'])}" for _ in keys]
    places = [f"    {t}, {'Kreisfreie Stadt' if c else 'Landkreis'}" for t, c in zip(towns, city, strict=True)]
    east, dense = (state > 11) * 1.0, np.exp(rng.normal(5.2, 0.5, n) + 1.9 * city)
    idle, taxes = (4.3 + 2.0 * east + 1.8 * city + rng.normal(0, 1.3, n)).clip(1.2), rng.normal(820, 170, n) - 230 * east
    old, guests = rng.normal(21, 2, n) + 2.5 * east, rng.gamma(2, 1.6, n)
    rows: list[str] = []
    for year in (2015, 2016, 2017):
        quota, share = idle - 0.3 * (year - 2016) + rng.normal(0, 0.2, n), old + 0.2 * (year - 2016)
        level = 21_600 - 560 * (quota - 5.5) + 3.4 * (taxes - 750) - 900 * east + 480 * (year - 2016) + 260 * np.log(dense / 200)
        level += 110 * (guests - 3) - 90 * (share - 22) + rng.normal(0, 520, n)
        columns = (
            keys,
            places,
            comma(dense, 1),
            some(rng, comma(quota, 1), 0.02, "."),
            some(rng, comma(taxes, 2), 0.02, "x"),
            some(rng, some(rng, comma(guests, 1), 0.06, "-"), 0.08, "/"),
            comma(share, 1),
            some(rng, comma(rng.uniform(3, 9, n), 1), 0.3, "."),
            some(rng, [f"{e:.0f}" for e in level], 0.015, "."),
        )
        rows += [";".join((f"31.12.{year}", *map(str, row))) for row in zip(*columns, strict=True)]
    top = [f"{title};;;;;;;;;" for title in ("Tabelle: 82411-01-03-4", "Verfügbares Einkommen der Haushalte", "Kreise, Stichtag")]
    names = "Einwohner je km²;Arbeitslosenquote;Steuereinnahmen je Einwohner;Gästeübernachtungen je Einwohner;Anteil 65 und älter"
    head = f";;;{names};Schulabgänger ohne Abschluss;Verfügbares Einkommen je Einwohner"
    foot = ("__________", "Quelle: Statistische Ämter des Bundes und der Länder", "(C)opyright Statistisches Bundesamt, 2019")
    lines = [*top, head, ";;;Anzahl;Prozent;EUR;Anzahl;Prozent;Prozent;EUR", *rows, *foot]
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode("latin-1"))


def survey(path: Path, rng: np.random.Generator, n: int = 1600) -> None:
    """Stack Overflow's survey: several answers in a cell between semicolons, NA (in the target too), `Less than 1 year` among
    numbers, ranges as words, answers with commas and curly quotes, pay in any currency, once 3e+60; three classes."""
    tongues = np.array(["C", "C++", "C#", "HTML/CSS", "JavaScript", "Python", "Bash/Shell (all shells)", "Rust", "TypeScript"])
    known = rng.random((n, len(tongues))) < 0.32
    known[~known.any(axis=1), 4] = True
    staff = [f"{size} employees" for size in ("2 to 9", "20 to 99", "100 to 499", "1,000 to 4,999", "10,000 or more")]
    sizes = ("Just me - I am a freelancer, sole proprietor, etc.", *staff)
    lands = ("Germany", "India", "United States of America", "United Kingdom of Great Britain and Northern Ireland")
    size, place, years = rng.integers(0, 6, n), rng.integers(0, 4, n), rng.gamma(1.7, 7, n).clip(0, 52).round()
    pay = np.exp(rng.normal(10.4, 0.45, n) + 0.03 * years.clip(0, 25) + np.array([0.3, -0.9, 0.8, 0.3])[place]).round()
    free = known @ [-1.1, -0.9, -0.4, 0.1, 0.4, 0.2, 0.0, 0.8, 1.1] + 0.05 * (years - 12) + 0.8 * (np.log(pay) - 10.9)
    free += np.array([-0.2, 0.5, 0.5, -0.6])[place] - 0.45 * (size - 2)
    mixed = 0.6 + 0.35 * (size - 2) + 0.25 * (np.log(pay) - 10.9) + 0.4 * (place == 0)
    where = np.argmax(np.c_[1.6 * free, 1.3 * mixed, -0.9 * free - 0.1] + rng.gumbel(0, 0.45, (n, 3)), axis=1)
    modes = ("Remote", "Hybrid (some remote, some in-person)", "In-person")
    jobs = (
        "Employed, full-time",
        "Employed, full-time;Independent contractor, freelancer, or self-employed",
        "Student, part-time",
    )
    coded = ["Less than 1 year" if y == 0 else "More than 50 years" if y > 50 else f"{y:.0f}" for y in years]
    totals = [f"{p:.0f}" if row != n // 3 else "3e+60" for row, p in enumerate(np.where(place == 1, 70 * pay, pay))]
    money = ("EUR European Euro", "INR\tIndian rupee", "USD\tUnited States dollar", "GBP\tPound sterling")
    ages = [f"{span} years old" for span in ("18-24", "25-34", "35-44", "45-54", "55-64", "65-74")]
    columns = {
        "ResponseId": np.arange(1, n + 1),
        "Age": some(rng, [ages[min(int(a), 5)] for a in (years + rng.integers(0, 9, n)) // 10], 0.02, "Prefer not to say"),
        "Employment": rng.choice(jobs, n, p=[0.8, 0.14, 0.06]),
        "RemoteWork": some(rng, [modes[w] for w in where], 0.04, "NA"),
        "YearsCodePro": some(rng, coded, 0.08, "NA"),
        "OrgSize": some(rng, [sizes[s] for s in size], 0.06, "I don’t know"),
        "Country": [lands[p] for p in place],
        "Currency": [money[p] for p in place],
        "CompTotal": totals,
        "LanguageHaveWorkedWith": some(rng, [";".join(tongues[row]) for row in known], 0.02, "NA"),
        "ConvertedCompYearly": some(rng, pay.astype(int), 0.25, "NA"),
    }
    pandas.DataFrame(columns).to_csv(path, index=False)


# file -> how it is made, and what is predicted.
TABLES: Tables = {
    "play.csv": (play, "Rating"),
    "loans.csv": (loans, "loan_status"),
    "listings.csv": (listings, "host_is_superhost"),
    "cars.csv": (cars, "selling_price"),
    "diabetes.csv": (diabetes, "readmitted"),
    "weather.csv": (weather, "HourlyRelativeHumidity"),
    "auto-mpg.data": (mpg, "column_1"),
    "taxi.parquet": (taxi, "total_amount"),
    "income.csv": (income, "Verfügbares Einkommen je Einwohner"),
    "survey.csv": (survey, "RemoteWork"),
}

if __name__ == "__main__":
    for name in TABLES:
        print(write(Path(sys.argv[1]), name, TABLES, 2027))
