"""Lists the sentences of the synthetic sample: kinds of news, each with several frames of the same meaning.

In a frame, `{slot}` or `{slot.facet}` is replaced by a spelling of the slot's meaning, and `{a|b}` by one of two words
with the same meaning.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """A kind of news. `slots` maps each slot to its lexicon. All `frames` have the same meaning and the same slots.

    `changes` are the slots in which every meaning has several spellings: a hard negative changes these first. `swaps`
    are pairs of slots whose roles a hard negative may exchange.
    """

    slots: dict[str, str]
    frames: tuple[str, ...]
    changes: tuple[str, ...]
    swaps: tuple[tuple[str, str], ...] = ()


SCENES: tuple[Scene, ...] = (
    Scene(
        {"a": "company", "trend": "trend", "num": "number", "day": "day", "cause": "rates"},
        (
            "{the shares|the stock} of {a} {trend.past} {num} percent {day} after {cause}, {analysts|traders} said.",
            (
                "{analysts|traders} said that {the stock|the share price} of {a} {trend.past} {num} percent "
                "{day} because {cause}."
            ),
            (
                "after {cause}, {the shares|the stock} of {a} {trend.past} by {num} percent {day}, according to "
                "{analysts|traders}."
            ),
            (
                "there was {trend.noun} of {num} percent in {the shares|the stock} of {a} {day} after {cause}, "
                "{analysts|traders} said."
            ),
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
            (
                "because of {sales} {market}, the {period} profit of {a} {trend.past} by {num} percent, the "
                "company said {day}."
            ),
            (
                "{sales} {market} led to {trend.noun} of {num} percent in the {period} profit of {a}, it "
                "{said|announced} {day}."
            ),
        ),
        ("trend", "num", "period", "sales", "market"),
    ),
    Scene(
        {"a": "company", "b": "company", "deal": "deal", "num": "number", "day": "day"},
        (
            (
                "{a} {deal.past} {buy|acquire|take over} {b} for {num} million dollars, {officials|managers} of "
                "both said {day}."
            ),
            (
                "{officials|managers} said {day} that {b} {deal.will} {bought|acquired|taken over} by {a} for "
                "{num} million dollars."
            ),
            (
                "for {num} million dollars, {b} {deal.will} {sold to|bought by} {a}, {officials|managers} of "
                "both companies said {day}."
            ),
            (
                "{day}, {a} {deal.past} {buy|purchase} its rival {b} at a price of {num} million dollars, "
                "{officials|managers} said."
            ),
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
            (
                "{day}, {num} or more {who} {harm.were} when {event} struck a town in {region} {c.land}, "
                "{officials|the police} said."
            ),
        ),
        ("event", "harm", "num", "region"),
    ),
    Scene(
        {"body": "chamber", "vote": "vote", "bill": "bill", "num": "number", "day": "day"},
        (
            "{body} {vote.past} {bill} {day} by a {margin|majority} of {num} votes after a long {debate|discussion}.",
            "{day}, after a long {debate|discussion}, {bill} was {vote.pp} by {body} with {num} votes to spare.",
            (
                "by a {margin|majority} of {num} votes, {body} {vote.past} {bill} {day} at the end of a long "
                "{debate|discussion}."
            ),
            "{bill} was {vote.pp} {day} by {body}, which had {debated|discussed} it for long, by {num} votes.",
        ),
        ("body", "vote", "bill", "num"),
    ),
    Scene(
        {"a": "team", "b": "team", "result": "result", "goals": "number", "reach": "reach", "day": "day"},
        (
            "{a} {result.past} {b} {day} in front of {goals} thousand {fans|spectators} in a match to {reach}.",
            "{day}, {b} {result.passive} {a} in a match to {reach} that {goals} thousand {fans|spectators} watched.",
            (
                "in front of {goals} thousand {fans|spectators}, {b} {result.passive} {a} {day} in a "
                "{match|game} to {reach}."
            ),
            (
                "with {goals} thousand {fans|spectators} looking on, {a} {result.past} {b} {day} in a "
                "{match|game} to {reach}."
            ),
        ),
        ("result", "reach", "goals"),
        (("a", "b"),),
    ),
    Scene(
        {"drug": "drug", "effect": "effect", "illness": "illness", "who": "patients", "num": "number", "c": "country"},
        (
            (
                "{drug} {effect.past} the risk of {illness} by {num} percent in {who}, {doctors|researchers} in "
                "{c.land} said."
            ),
            (
                "{doctors|researchers} in {c.land} {found|reported} that {who} who took {drug} {effect.likely} "
                "{illness}, by {num} percent."
            ),
            (
                "in {who}, the risk of {illness} was {effect.pp} by {num} percent with {drug}, a study in "
                "{c.land} {found|showed}."
            ),
            (
                "a study in {c.land} {found|showed} that {drug} {effect.past} the danger of {illness} for {who} "
                "by {num} percent."
            ),
        ),
        ("effect", "illness", "who", "num"),
    ),
    Scene(
        {"a": "company", "staffing": "staffing", "num": "number", "city": "city", "deadline": "deadline", "day": "day"},
        (
            (
                "{a} said {day} that it will {staffing.inf} {num} thousand {jobs|positions} at its "
                "{plant|factory} in {city} {deadline}."
            ),
            (
                "{num} thousand {jobs|positions} will be {staffing.pp} {deadline} at the {city} {plant|factory} "
                "of {a}, it said {day}."
            ),
            (
                "{day}, {a} {announced|unveiled} plans to {staffing.inf} {num} thousand {jobs|positions} in "
                "{city} {deadline}."
            ),
            "{deadline}, {num} thousand {jobs|positions} will be {staffing.pp} in {city}, {a} {announced|said} {day}.",
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
            (
                "{police|detectives} in {city} {custody.past} {num} {who} {day}, hours after {raid} near the "
                "{station|river}."
            ),
            "{num} {who} were {custody.pp} {day} by {police|detectives} in {city}, hours after {raid}.",
            (
                "hours after {raid}, {police|detectives} in {city} {custody.past} {num} {who} {day}, a "
                "{spokesman|spokeswoman} said."
            ),
            (
                "{day}, {num} {who} were {custody.pp} in {city} in {a case|an inquiry} that began hours before, "
                "when {raid}."
            ),
        ),
        ("custody", "num", "who", "raid"),
    ),
)
