"""Lists the words of the synthetic sample: meanings and their spellings. Companies and events are invented.

`a|b` are spellings of one meaning. A meaning that a hard negative may change has two or more spellings, and a pair may
combine any two of them: so no single word distinguishes a change of meaning from a change of words.
"""

Meaning = dict[str, str]
"""Facet (a grammatical form, '' for the only one) -> spellings, separated by '|'."""


def _plain(*entries: str) -> tuple[Meaning, ...]:
    return tuple({"": entry} for entry in entries)


def _named(*entries: str) -> tuple[Meaning, ...]:
    """Turn 'trade / Name Rest' into meanings: the full name, its first word, and the name with its trade."""
    pairs = [entry.split(" / ") for entry in entries]
    return tuple({"": f"{name}|{name.split()[0]}|the {trade} {name}"} for trade, name in pairs)


def _countries(*entries: str) -> tuple[Meaning, ...]:
    """Turn 'Name, Capital, adjective' into meanings: a government by any of them, the land by its name."""
    rows = [entry.split(", ") for entry in entries]
    return tuple(
        {"": f"{name}|{capital}|the {adjective} government", "land": name} for name, capital, adjective in rows
    )


_ONES = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = (*zip(range(2, 18), _ONES.split(), strict=True), *zip(range(20, 100, 10), _TENS.split(), strict=True))

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
        *"Arsenal Barcelona Juventus Ajax Porto Benfica Lyon Valencia Celtic Marseille Napoli Monaco Hamburg".split()
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
        {
            "past": "reduced|lowered|cut",
            "pp": "reduced|lowered|cut",
            "likely": "were less likely to suffer|less often suffered",
        },
        {
            "past": "increased|raised|added to",
            "pp": "increased|raised|heightened",
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
    "remark": _plain(
        "for the second time in a month|as had happened once before in the month",
        "as local newspapers had predicted|in line with what the local press foretold",
        "although many had expected otherwise|against the expectations of many",
        "to the surprise of most observers|which few observers had foreseen",
        "for reasons that were not made clear|without an explanation",
        "as the evening news showed|as was seen on the evening news",
    ),
}
