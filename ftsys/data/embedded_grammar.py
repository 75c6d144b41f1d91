"""The words of the embedded synthetic sample: lexicon, scenes and sentence frames. Companies and events are made up.

A lexicon maps a meaning to its spellings, by facet; `a|b` are spellings of one meaning. A meaning that a hard negative
may change has two spellings or more, and any of them may meet any other in a pair: so no single word tells a change of
meaning from a change of words, and counting words does not solve the task.
"""

from dataclasses import dataclass

Meaning = dict[str, str]
"""Facet -> spellings, separated by '|'."""


@dataclass(frozen=True)
class Scene:
    """A kind of news. `slots` map each slot to its lexicon; all `frames` say the same of the same slots.

    `changes` are the slots whose meaning a hard negative may change, `swaps` the pairs whose roles it may exchange.
    """

    slots: dict[str, str]
    frames: tuple[str, ...]
    changes: tuple[str, ...]
    swaps: tuple[tuple[str, str], ...] = ()


def _plain(*entries: str) -> tuple[Meaning, ...]:
    return tuple({"": entry} for entry in entries)


def _named(*entries: str) -> tuple[Meaning, ...]:
    """'trade / Name Rest' -> the full name, its first word, and the name with its trade."""
    pairs = [entry.split(" / ") for entry in entries]
    return tuple({"": f"{name}|{name.split()[0]}|the {trade} {name}"} for trade, name in pairs)


def _countries(*entries: str) -> tuple[Meaning, ...]:
    """'Name, Capital, adjective' -> a government by any of the three; the land by its name alone."""
    rows = [entry.split(", ") for entry in entries]
    return tuple(
        {"": f"{name}|{capital}|the {adjective} government", "land": name} for name, capital, adjective in rows
    )


_ONES = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = (*zip(range(2, 19), _ONES.split(), strict=True), *zip(range(20, 100, 10), _TENS.split(), strict=True))

LEXICON: dict[str, tuple[Meaning, ...]] = {
    "number": _plain(*(f"{digits}|{word}" for digits, word in _NUMBERS)),
    "day": _plain(*(f"on {day}" for day in "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())),
    "company": _named(
        "grocer / Harbor Foods",
        "carrier / Summit Airlines",
        "lender / Granite Bank",
        "car maker / Meadow Motors",
        "publisher / Silver Media",
        "power supplier / Crown Energy",
        "software firm / Willow Systems",
        "metal producer / Falcon Steel",
        "pharmacy chain / Orchard Drugs",
        "phone operator / Cedar Telecom",
        "insurer / Lantern Mutual",
        "train operator / Pioneer Rail",
    ),
    "country": _countries(
        "Germany, Berlin, German",
        "France, Paris, French",
        "Russia, Moscow, Russian",
        "China, Beijing, Chinese",
        "Japan, Tokyo, Japanese",
        "Britain, London, British",
        "India, Delhi, Indian",
        "Egypt, Cairo, Egyptian",
        "Turkey, Ankara, Turkish",
        "Spain, Madrid, Spanish",
        "Canada, Ottawa, Canadian",
        "Poland, Warsaw, Polish",
    ),
    "city": _plain(*"Boston Chicago Denver Seattle Houston Atlanta Portland Dallas Miami Phoenix".split()),
    "team": _plain(
        *"Arsenal Barcelona Juventus Ajax Porto Benfica Lyon Valencia Celtic Marseille Napoli Monaco Hamburg Everton".split()
    ),
    "trend": (
        {"past": "rose|climbed|gained|went up", "noun": "a rise|an increase|a gain"},
        {"past": "fell|dropped|slipped|went down", "noun": "a fall|a drop|a decline"},
    ),
    "rates": _plain(
        "the central bank raised interest rates|interest rates were increased|borrowing became more expensive",
        "the central bank cut interest rates|interest rates were lowered|borrowing became cheaper",
    ),
    "period": _plain("quarterly|three-month", "annual|full-year|yearly"),
    "sales": _plain("strong sales|high demand|good business", "weak sales|poor demand|slow business"),
    "market": _plain("abroad|in foreign markets|overseas", "at home|in the domestic market"),
    "deal": (
        {"past": "agreed to|decided to|signed a contract to", "will": "will be|is to be"},
        {"past": "refused to|declined to|rejected a plan to", "will": "will not be|is not to be"},
    ),
    "verdict": (
        {"past": "was convicted of|was found guilty of", "active": "convicted {who} of|found {who} guilty of"},
        {"past": "was acquitted of|was cleared of", "active": "acquitted {who} of|cleared {who} of"},
    ),
    "crime": _plain(
        "fraud|cheating investors",
        "murder|killing a man",
        "theft|stealing money",
        "bribery|paying bribes",
        "smuggling|bringing in drugs",
        "arson|setting fire to a building",
    ),
    "accused": _plain(
        "a doctor|a physician",
        "a lawyer|an attorney",
        "a teacher|a school instructor",
        "a banker|a finance executive",
        "a police officer|a policeman",
        "a soldier|an army private",
    ),
    "disaster": _plain(
        "a flood|rising water", "an earthquake|a strong tremor", "a fire|a blaze", "a bomb|an explosion"
    ),
    "harm": (
        {"past": "killed|took the lives of", "were": "were killed|died|lost their lives"},
        {"past": "injured|hurt|wounded", "were": "were injured|were hurt|were wounded"},
    ),
    "people": _plain("people", "villagers", "workers", "tourists", "students"),
    "region": _plain("the north of|northern", "the south of|southern", "the east of|eastern", "the west of|western"),
    "vote": (
        {"past": "approved|passed|voted for", "pp": "approved|passed|backed"},
        {"past": "rejected|threw out|voted against", "pp": "rejected|thrown out|voted down"},
    ),
    "chamber": _plain("the Senate|the upper house", "the House|the lower chamber", "the city council|local lawmakers"),
    "bill": _plain(
        "a bill to cut taxes|a tax relief law",
        "a bill to raise taxes|a tax increase law",
        "a bill to limit gun sales|a gun control law",
        "a bill to fund new schools|an education spending law",
        "a bill to protect forests|an environmental law",
        "a bill to allow casinos|a gambling law",
    ),
    "reach": _plain(
        "reach the final|earn a place in the title match",
        "reach the semifinals|earn a place in the last four",
        "avoid relegation|stay in the first division",
        "top the table|take over first place",
    ),
    "result": (
        {"past": "beat|defeated|won against", "passive": "lost to|was beaten by|was defeated by"},
        {"past": "lost to|was beaten by|was defeated by", "passive": "beat|defeated|won against"},
    ),
    "effect": (
        {"past": "reduced|lowered|cut", "pp": "reduced|lowered|cut", "likely": "were less likely to suffer|less often suffered"},
        {
            "past": "increased|raised|added to",
            "pp": "increased|raised|made higher",
            "likely": "were more likely to suffer|more often suffered",
        },
    ),
    "drug": _plain(
        "aspirin", "a cholesterol drug", "a vitamin pill", "a hormone treatment", "an asthma drug", "a new vaccine"
    ),
    "illness": _plain("a heart attack|cardiac arrest", "a stroke|bleeding in the brain", "cancer|a tumor"),
    "patients": _plain(
        "older women|elderly women", "older men|elderly men", "children|boys and girls", "smokers|people who smoke"
    ),
    "staffing": (
        {"inf": "cut|eliminate|shed", "pp": "cut|eliminated|lost"},
        {"inf": "add|create", "pp": "added|created"},
    ),
    "deadline": _plain(
        "by the end of the year|before next year", "by the summer|before June", "within weeks|this month"
    ),
    "stance": (
        {"past": "accused {b} of|blamed {b} for|criticized {b} for", "passive": "was accused of|was blamed for"},
        {"past": "praised {b} for|thanked {b} for|commended {b} for", "passive": "was praised for|was thanked for"},
    ),
    "act": _plain(
        "sending troops to the border|moving soldiers to the frontier",
        "leaving the trade talks|walking out of the negotiations on trade",
        "releasing the prisoners|setting the captives free",
        "closing its airports|shutting its airfields",
        "opening the archives|making the secret files public",
    ),
    "custody": (
        {"past": "arrested|detained|took into custody", "pp": "arrested|detained|taken into custody"},
        {"past": "released|freed|let go", "pp": "released|freed|let go"},
    ),
    "suspects": _plain("men|male suspects", "women|female suspects", "teenagers|youths"),
    "raid": _plain(
        "a bank was robbed|robbers held up a bank",
        "a shop was burned down|arsonists destroyed a shop",
        "a car was stolen|thieves took a car",
    ),
}

SCENES: tuple[Scene, ...] = (
    Scene(
        {"a": "company", "trend": "trend", "num": "number", "day": "day", "cause": "rates"},
        (
            "{the shares|the stock} of {a} {trend.past} {num} percent {day} after {cause}, {analysts|traders} said.",
            "{analysts|traders} said that {the stock|the share price} of {a} {trend.past} {num} percent {day} because {cause}.",
            "after {cause}, {the shares|the stock} of {a} {trend.past} by {num} percent {day}, according to {analysts|traders}.",
            "there was {trend.noun} of {num} percent in {the shares|the stock} of {a} {day} after {cause}, {analysts|traders} said.",
        ),
        ("trend", "num", "cause"),
    ),
    Scene(
        {
            "a": "company",
            "trend": "trend",
            "num": "number",
            "period": "period",
            "sales": "sales",
            "market": "market",
            "day": "day",
        },
        (
            "{a} said {day} that its {period} profit {trend.past} {num} percent because of {sales} {market}.",
            "{day}, {a} reported {trend.noun} of {num} percent in its {period} profit, a result of {sales} {market}.",
            "because of {sales} {market}, the {period} profit of {a} {trend.past} by {num} percent, the company said {day}.",
            "{sales} {market} led to {trend.noun} of {num} percent in the {period} profit of {a}, it {said|announced} {day}.",
        ),
        ("trend", "num", "period", "sales", "market"),
    ),
    Scene(
        {"a": "company", "b": "company", "deal": "deal", "num": "number", "day": "day"},
        (
            "{a} {deal.past} {buy|acquire|take over} {b} for {num} million dollars, {officials|managers} of both said {day}.",
            "{officials|managers} said {day} that {b} {deal.will} {bought|acquired|taken over} by {a} for {num} million dollars.",
            "for {num} million dollars, {b} {deal.will} {sold to|bought by} {a}, {officials|managers} of both companies said {day}.",
            "{day}, {a} {deal.past} {buy|purchase} its rival {b} at a price of {num} million dollars, {officials|managers} said.",
        ),
        ("deal", "num"),
        (("a", "b"),),
    ),
    Scene(
        {"who": "accused", "city": "city", "verdict": "verdict", "crime": "crime", "num": "number", "day": "day"},
        (
            "{who} from {city} {verdict.past} {crime} {day} after a trial that lasted {num} weeks.",
            "a {jury|court} in {city} {verdict.active} {crime} {day} at the end of a {trial|case} of {num} weeks.",
            "after {num} weeks of {testimony|hearings}, {who} from {city} {verdict.past} {crime} {day}.",
            "{day}, at the end of {num} weeks in court in {city}, {who} {verdict.past} {crime}.",
        ),
        ("verdict", "crime", "num", "who"),
    ),
    Scene(
        {
            "event": "disaster",
            "harm": "harm",
            "num": "number",
            "who": "people",
            "region": "region",
            "c": "country",
            "day": "day",
        },
        (
            "{event} {harm.past} at least {num} {who} in {region} {c.land} {day}, {officials|the police} said.",
            "at least {num} {who} {harm.were} {day} in {event} in {region} {c.land}, {officials|the police} said.",
            "{officials|the police} in {region} {c.land} said {day} that {event} {harm.past} {num} {who} or more.",
            "{day}, {num} or more {who} {harm.were} when {event} struck a town in {region} {c.land}, {officials|the police} said.",
        ),
        ("event", "harm", "num", "region"),
    ),
    Scene(
        {"body": "chamber", "vote": "vote", "bill": "bill", "num": "number", "day": "day"},
        (
            "{body} {vote.past} {bill} {day} by a {margin|majority} of {num} votes after a long {debate|discussion}.",
            "{day}, after a long {debate|discussion}, {bill} was {vote.pp} by {body} with {num} votes to spare.",
            "by a {margin|majority} of {num} votes, {body} {vote.past} {bill} {day} at the end of a long {debate|discussion}.",
            "{bill} was {vote.pp} {day} by {body}, which had {debated|discussed} it for long, by {num} votes.",
        ),
        ("body", "vote", "bill", "num"),
    ),
    Scene(
        {"a": "team", "b": "team", "result": "result", "goals": "number", "reach": "reach", "day": "day"},
        (
            "{a} {result.past} {b} {day} in front of {goals} thousand {fans|spectators} in a match to {reach}.",
            "{day}, {b} {result.passive} {a} in a match to {reach} that {goals} thousand {fans|spectators} watched.",
            "in front of {goals} thousand {fans|spectators}, {b} {result.passive} {a} {day} in a {match|game} to {reach}.",
            "with {goals} thousand {fans|spectators} looking on, {a} {result.past} {b} {day} in a {match|game} to {reach}.",
        ),
        ("result", "reach", "goals"),
        (("a", "b"),),
    ),
    Scene(
        {"drug": "drug", "effect": "effect", "illness": "illness", "who": "patients", "num": "number", "c": "country"},
        (
            "{drug} {effect.past} the risk of {illness} by {num} percent in {who}, {doctors|researchers} in {c.land} said.",
            "{doctors|researchers} in {c.land} {found|reported} that {who} who took {drug} {effect.likely} {illness}, by {num} percent.",
            "in {who}, the risk of {illness} was {effect.pp} by {num} percent with {drug}, a study in {c.land} {found|showed}.",
            "a study in {c.land} {found|showed} that {drug} {effect.past} the danger of {illness} for {who} by {num} percent.",
        ),
        ("effect", "illness", "who", "num"),
    ),
    Scene(
        {"a": "company", "staffing": "staffing", "num": "number", "city": "city", "deadline": "deadline", "day": "day"},
        (
            "{a} said {day} that it will {staffing.inf} {num} hundred {jobs|positions} at its {plant|factory} in {city} {deadline}.",
            "{num} hundred {jobs|positions} will be {staffing.pp} {deadline} at the {city} {plant|factory} of {a}, it said {day}.",
            "{day}, {a} {announced|unveiled} plans to {staffing.inf} {num} hundred {jobs|positions} in {city} {deadline}.",
            "{deadline}, {num} hundred {jobs|positions} will be {staffing.pp} in {city}, {a} {announced|said} {day}.",
        ),
        ("staffing", "num", "deadline"),
    ),
    Scene(
        {"a": "country", "b": "country", "stance": "stance", "act": "act", "day": "day"},
        (
            "{a} {stance.past} {act}, {a foreign ministry statement|a statement for the press} said {day}.",
            "{day}, {b} {stance.passive} {act} by {a}, according to {a foreign ministry statement|diplomats}.",
            "{diplomats|officials} said {day} that {b} {stance.passive} {act} in a statement from {a}.",
            "in a statement that was {issued|released} {day}, {a} {stance.past} {act}.",
        ),
        ("stance", "act"),
        (("a", "b"),),
    ),
    Scene(
        {"custody": "custody", "num": "number", "who": "suspects", "raid": "raid", "city": "city", "day": "day"},
        (
            "{police|detectives} in {city} {custody.past} {num} {who} {day}, hours after {raid} near the {station|river}.",
            "{num} {who} were {custody.pp} {day} by {police|detectives} in {city}, hours after {raid}.",
            "hours after {raid}, {police|detectives} in {city} {custody.past} {num} {who} {day}, a {spokesman|spokeswoman} said.",
            "{day}, {num} {who} were {custody.pp} in {city} in {a case|an inquiry} that began hours before, when {raid}.",
        ),
        ("custody", "num", "who", "raid"),
    ),
)
