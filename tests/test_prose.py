"""The prose: no number typed that should be looked up or computed, and one style throughout.

``typed_numbers``, ``style_faults`` and ``long_quotations`` say what is wrong with a piece of
Markdown. One test each asks them about the real pages and names file and line; the others plant one
fault for every rule, and show what each rule must leave alone.
"""

import ast
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ARTICLE = '-- "The David vs. Goliath AI Battle"'
MAX_QUOTATION_WORDS = 40
MOST_WORDS_ALIKE = 5  # in a row, of two epigraphs: "the ingenuity and resourcefulness of"

# --- what is not prose ------------------------------------------------------------------------

# Fences that hold prose all the same: the directive's body is read as Markdown.
PROSE_DIRECTIVES = {"admonition", "quiz", "note", "tip", "warning", "important", "dropdown", "div"}
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?:\{(?P<name>[\w-]+)\}[^\n]*|[^\n`]*)\n(?P<body>.*?)^(?P=fence)`*[ ]*$",
    re.M | re.S,
)
# A role with a title, as in {ref}`a title <target>`, prints the title; any other prints a value.
TITLED_ROLE = re.compile(r"(\{(?:ref|doc|numref|download)\}`)[^`<]+(<[^`>]+>`)")
NOT_PROSE = [
    re.compile(r"\A---\n.*?\n---$", re.M | re.S),  # front matter
    re.compile(r"<!--.*?-->", re.S),
    re.compile(r"^\([\w-]+\)=$", re.M),  # a label
    re.compile(r"^:[\w-]+:.*$", re.M),  # an option of a directive
    re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)"),  # code, and what a role names
    re.compile(r"\$\$.+?\$\$", re.S),
    re.compile(r"(?<!\\)\$(?!\s)[^$\n]+?(?<!\s)\$(?!\d)"),  # mathematics
    re.compile(r"(?<=\])\([^)\s]*\)"),  # the target of a link
    re.compile(r"<[^<>\n]+>|https?://\S+"),
]
BLOCK_QUOTE = re.compile(r"(?:^>.*(?:\n|\Z))+", re.M)
QUOTED = re.compile(r'"[^"\n]+"|“[^”\n]+”')


def prose(markdown: str) -> str:
    """The Markdown with spaces for what is no prose or the article's; line numbers are kept."""
    text = FENCE.sub(_blank_fence, markdown)
    text = TITLED_ROLE.sub(lambda m: m[0].replace(m[1], _blank(m[1])).replace(m[2], ""), text)
    for pattern in NOT_PROSE:
        text = pattern.sub(lambda match: _blank(match[0]), text)
    text = BLOCK_QUOTE.sub(lambda m: _blank(m[0]) if is_article_quotation(m[0]) else m[0], text)
    return QUOTED.sub(lambda match: _blank(match[0]), text)


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _blank_fence(match: re.Match[str]) -> str:
    if match["name"] not in PROSE_DIRECTIVES:
        return _blank(match[0])
    head, _, body = match[0].partition("\n")
    return head.replace("`", " ") + "\n" + body.replace("`" * len(match["fence"]), "")


def is_article_quotation(block: str) -> bool:
    """Whether a block quote ends with the name of the article."""
    return block.rstrip().splitlines()[-1].lstrip("> ").rstrip() == ARTICLE


# --- typed numbers ----------------------------------------------------------------------------

NUMBER = r"(?<![\w.\-−])\d[\d.,]*(?:\s?[–-]\s?\d[\d.,]*)?(?<![.,])"
SCALE = r"thousand|million|billion|trillion"
UNIT = (
    rf"{SCALE}|percent|dollars?|yuan|renminbi|GPU\s?hours?|GPUs?|chips?|servers?|nodes?"
    r"|[kKMGTPEZ]?FLOPs?(?:/s)?|[TGMP]FLOPS|TOPS|TPP|[kKMGTP]i?B(?:/s)?|bytes?|bits?|nats?"
    r"|parameters?|tokens?|layers?|experts?|heads?|problems?|rows?|points?|nanometers?|mm²"
    r"|hours?|days?|weeks?|months?|years?|minutes?|seconds?|ms|times|fold|watts?|[kMG]W"
)
# Names with a number in them that is not a quantity.
MODELS = "Llama|Qwen|DeepSeek|Mixtral|Mistral|SmolLM|Gemma|Distill|Gaudi|Claude|GPT"
NAME = re.compile(
    rf"\b(?:{MODELS})[\w.]*(?:[- ](?:Llama|Qwen|Coder|Math|V?\d[\w.]*))*\b|\b910[BC]\b"
)
RULES = {
    "currency": r"(?:\\?\$|[€¥£]|\b(?:RMB|USD|CNY|EUR)\s?)\s?\d[\d.,]*(?<![.,])"
    rf"(?:\s(?:{SCALE})\b)?",
    "unit": rf"{NUMBER}[\s -]?(?:{UNIT})\b",
    "percent": rf"{NUMBER}\s?%",
    "factor": rf"{NUMBER}\s?(?:×|x\b)(?!\s?\d)",
    "abbreviated": rf"{NUMBER}[KMBT]\b",
}
TYPED = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in RULES.items()))
YEAR = re.compile(r"20[12]\d\b(?![.,]\d)")


def find_typed(markdown: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each number with a unit or a currency that is typed in prose."""
    text = NAME.sub(lambda match: _blank(match[0]), prose(markdown))
    for match in TYPED.finditer(text):
        if not YEAR.match(match[0]):  # "in 2024 prices" and "2025 days" are dates
            yield text.count("\n", 0, match.start()) + 1, match[0]


def typed_numbers(markdown: str) -> list[str]:
    """The numbers with a unit or a currency that stand in the prose without a role."""
    return [found for _, found in find_typed(markdown)]


@pytest.mark.parametrize(
    ("markdown", "found"),
    [
        ("The run cost $5.576 million.", ["$5.576 million"]),
        (r"The run cost \$5.576 million.", [r"\$5.576 million"]),
        ("From $5 million to $6 million.", ["$5 million", "$6 million"]),  # no mathematics
        ("It fell to RMB 0.5, or USD 1.", ["RMB 0.5", "USD 1"]),
        ("About 10 billion yuan.", ["10 billion"]),
        ("A cut of 97.5% or 97 percent.", ["97.5%", "97 percent"]),
        ("It took 2,788,000 GPU hours.", ["2,788,000 GPU hours"]),
        ("It took 2664K hours.", ["2664K"]),
        ("It has 37B of 671 billion parameters.", ["37B", "671 billion"]),
        ("It has 256 experts and 2048 GPUs.", ["256 experts", "2048 GPUs"]),
        ("Its link has 400 GB/s, its core 989 TFLOP/s.", ["400 GB/s", "989 TFLOP/s"]),
        ("Its cache takes 80 GB and 6 bits.", ["80 GB", "6 bits"]),
        ("A router knows 1.3 nats.", ["1.3 nats"]),
        ("It ran for 54.2 days.", ["54.2 days"]),
        ("That is 14 times as much, 18× or 7x.", ["14 times", "18×", "7x"]),
        ("A 10-fold cut.", ["10-fold"]),
        ("Some 20–22 tokens per second.", ["20–22 tokens"]),
        ("| V3 | 5 days |", ["5 days"]),
        (":::{note} In 5 days\n:class: verdict\nIn 6 hours.\n:::", ["5 days", "6 hours"]),
        ("```{note}\nIt took 6 hours.\n```", ["6 hours"]),
        ("{ref}`a run of 6 hours <claim-13>`", ["6 hours"]),
        ("[a run of 6 hours](cost.md)", ["6 hours"]),
        ("> It took 6 hours.", ["6 hours"]),  # a block quote of nobody
        ('> It took 6 hours.\n>\n> -- "Another article"', ["6 hours"]),
        ('It cost $5 million", he said, "and more.', ["$5 million"]),
        ("Llama 3.1 405B took 30 days.", ["30 days"]),
    ],
)  # fmt: skip
def test_a_typed_number_is_found(markdown: str, found: list[str]) -> None:
    assert typed_numbers(markdown) == found


@pytest.mark.parametrize(
    "markdown",
    [
        "It cost {fact}`v3.cost.total`, {glue:text}`../notebooks/a.ipynb::days:s` in all.",
        "On January 20, 2025, between 2019 and 2025. In 2024 tokens became cheap.",
        "Section 4.2, Table 6, eqs. 12-16, claim 36b and {ref}`claim 13 <claim-13>`.",
        "Python 3.11, GPT-4, o1, R1, V3, H800, A100, RTX 4090, FP8, E4M3, Ascend 910B.",
        "Llama 3.1 405B, DeepSeek 67B, Qwen2.5-72B, Claude 3.5 Sonnet, Gaudi 2.",
        "The code `x = 5 days` and ``a `b` 6 hours`` is no prose.",
        "```python\nwait = 5 # days\nprint('5 days')\n```",
        "```{timeline}\nmodels: v3.release V3 of 5 days\n```",
        "```{raw} html\n<p>5 days</p>\n```",
        "It takes $6ND$ operations, $n = 5$ days, $1 - p$ tokens.",
        "$$\n5 days\n$$",
        "(5-days)=\n# A heading",
        ":::{figure} a.svg\n:width: 5 days\n:::",
        "[a page](5-days.md) and <https://example.org/5%20days>",
        "{cite:p}`shazeer2017,gshard` and {.lead}",
        '> It cost $5.6 million.\n>\n> -- "The David vs. Goliath AI Battle"',
        'The article says "a mere $5.6 million" and “up to 90%”.',
        '## Claim 1: "massive $500 billion investment"',
        "<!--\n5 days\n-->",
        "Two months, a trillion tokens, one day.",
        "A tensor of 128 × 128 or 1x128.",
    ],
)
def test_what_is_no_typed_number_is_left(markdown: str) -> None:
    assert typed_numbers(markdown) == []


def test_line_numbers_survive() -> None:
    page = "---\na: 5 days\n---\n# Title\n\n```python\n5 days\n```\n\n> a\n\nIt took 6 hours.\n"
    assert list(find_typed(page)) == [(12, "6 hours")]


# --- quotations -------------------------------------------------------------------------------


def long_quotations(markdown: str) -> list[str]:
    """The block quotes of the article that are longer than a quotation should be."""
    blocks = [match[0] for match in BLOCK_QUOTE.finditer(markdown)]
    words = [re.sub(r"^>", "", block, flags=re.M).split() for block in blocks]
    return [
        " ".join(found)
        for block, found in zip(blocks, words, strict=True)
        if is_article_quotation(block) and len(found) - len(ARTICLE.split()) > MAX_QUOTATION_WORDS
    ]


def test_a_long_quotation_is_found() -> None:
    def page(words: int, source: str = ARTICLE) -> str:
        return f"# A\n\n> {'word ' * words}\n>\n> {source}\n\nText.\n"

    assert long_quotations(page(40)) == []
    assert len(long_quotations(page(41))) == 1
    assert long_quotations(page(60, "-- another text")) == []
    assert len(long_quotations(page(41).rstrip())) == 1
    assert len(long_quotations(page(3) + page(41) + page(50))) == 2


def epigraph(markdown: str) -> list[str]:
    """The words of the article that a page opens with, none if it opens with others."""
    for block in BLOCK_QUOTE.finditer(markdown.partition("\n## ")[0]):
        words, _, source = block[0].replace(">", " ").rpartition(" -- ")
        if ARTICLE.removeprefix("-- ") in source:
            return re.findall(r"[\w'$.]*\w", words.lower())
    return []


def opening_alike(openings: dict[str, list[str]]) -> list[str]:
    """Pairs of pages whose epigraphs share a run of words, or of which one contains the other's."""
    alike = []
    for (a, words), (b, others) in combinations(openings.items(), 2):
        length = min(len(words), len(others), MOST_WORDS_ALIKE + 1)
        runs = [
            {tuple(w[i : i + length]) for i in range(len(w) - length + 1)} for w in (words, others)
        ]
        if length and runs[0] & runs[1]:
            alike.append(f"{a} and {b}: {' '.join(min(runs[0] & runs[1]))}")
    return alike


def test_two_pages_that_open_alike_are_found() -> None:
    def page(words: str, source: str = ARTICLE) -> list[str]:
        return epigraph(f"# A title\n\n> {words}\n>\n> {source}\n\nText.\n\n## More\n")

    whole = page(
        "DeepSeek's focus is on improving efficiency and reducing costs, which is evident."
    )
    assert whole[:3] == ["deepseek's", "focus", "is"]
    part = page("Its focus is on improving\n> efficiency and reducing costs")
    named = page(
        "efficiency and reducing", '-- Somebody, as quoted in "The David vs. Goliath AI Battle"'
    )
    rest = page("DeepSeek's focus is evident in its model.")
    another = page("improving efficiency and reducing costs, as is evident", "-- another text")
    assert len(opening_alike({"a": whole, "b": part})) == 1
    assert len(opening_alike({"a": whole, "b": whole, "c": whole})) == 3
    assert len(opening_alike({"a": whole, "b": named})) == 1
    assert opening_alike({"a": whole, "b": rest, "c": another, "d": []}) == []
    assert epigraph("# A\n\nText.\n\n## B\n\n> Late\n>\n> " + ARTICLE) == []


# --- style ------------------------------------------------------------------------------------

SPELLING = {
    "utilis": "utiliz",
    "behaviour": "behavior",
    "colour": "color",
    "favour": "favor",
    "licence": "license",
    "modelling": "modeling",
    "labelled": "labeled",
    "labelling": "labeling",
    "normalis": "normaliz",
    "quantis": "quantiz",
    "optimis": "optimiz",
    "amortis": "amortiz",
    "recognis": "recogniz",
    "generalis": "generaliz",
    "summaris": "summariz",
    "specialis": "specializ",
    "analyse": "analyze",
    "centre": "center",
    "millimetre": "millimeter",
    "grey": "gray",
    "artefact": "artifact",
    "whilst": "while",
}
STYLE = {
    **{rf"(?i)\b{british}\w*": f"American: {american}" for british, american in SPELLING.items()},
    r"(?i)\bsimply\b": "leave out 'simply'",
    r"\b(?:TODO|FIXME|XXX)\b": "do it or file it",
    "[\U0001f000-\U0001faff☀-➿️]": "no emoji",
}


def find_faults(text: str) -> Iterator[tuple[int, str]]:
    """The line of each fault of style, and what to write instead."""
    for pattern, remedy in STYLE.items():
        for match in re.finditer(pattern, text):
            if not match[0].lower().startswith(("optimist", "optimism")):
                yield text.count("\n", 0, match.start()) + 1, f"{match[0]!r}: {remedy}"


def style_faults(markdown: str) -> list[str]:
    """The faults of style in the prose of a page."""
    return [fault for _, fault in find_faults(prose(markdown))]


@pytest.mark.parametrize(
    "markdown",
    [
        *(f"A {word} stands here." for word in SPELLING),
        *(
            f"It is {word}."
            for word in ["utilised", "quantised", "a behaviour", "coloured", "grey", "whilst"]
        ),
        *(
            f"It is {word}."
            for word in ["a licence", "labelled", "modelling", "analysed", "centred"]
        ),
        "It simply works.",
        "# TODO",
        "Fast 🚀",
        "Done ✅",
    ],
)
def test_a_fault_of_style_is_found(markdown: str) -> None:
    assert len(style_faults(markdown)) == 1


@pytest.mark.parametrize(
    "markdown",
    [
        *(f"The {word} stands here." for word in SPELLING.values()),
        "He is optimistic; it is optimism.",
        "It is simple. The `colour` is code; 3 × 4 ≈ 12 → ok.",
        '> It is simply so.\n>\n> -- "The David vs. Goliath AI Battle"',
    ],
)
def test_good_style_is_left(markdown: str) -> None:
    assert style_faults(markdown) == []


# --- the order of the pages -------------------------------------------------------------------

GLUED = re.compile(r"\{glue:\w+\}`(?:\.\./)?(notebooks/\w+)\.ipynb::(\w+)")


def told_too_early(order: list[str], pages: dict[str, str]) -> list[str]:
    """The results that a page prints before the notebook that asks for them, in reading order."""
    return [
        f"{page} prints {result} of {notebook}, which comes later"
        for place, page in enumerate(order)
        for notebook, result in GLUED.findall(pages.get(page, ""))
        if notebook not in order[:place]
    ]


def test_a_result_before_its_question_is_found() -> None:
    pages = {"book/a": "It is {glue:text}`../notebooks/n.ipynb::x:s`.", "book/b": "None."}
    assert told_too_early(["book/a", "notebooks/n", "book/b"], pages) == [
        "book/a prints x of notebooks/n, which comes later"
    ]
    assert told_too_early(["notebooks/n", "book/a", "book/b"], pages) == []


def test_no_page_prints_a_result_before_its_notebook_asks() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    order = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    files = {page: ROOT / f"{page}.md" for page in order}
    pages = {page: file.read_text("utf-8") for page, file in files.items() if file.exists()}
    assert sum(len(GLUED.findall(text)) for text in pages.values()) > 50
    assert told_too_early(order, pages) == []


# --- the real pages ---------------------------------------------------------------------------

# File, typed number: why it may stand. A number that is looked up or computed has no place here.
REVIEWED: dict[tuple[str, str], str] = {
    ("book/cost.md", "67B"): "DeepSeek 67B is the name of a model",
    ("book/how_to_read_results.md", "95%"): "the confidence that we chose",
    ("book/moe_results.md", "200 tokens"): "the length of our example question",
    ("book/teaching.md", "0.6 GB"): "measured once, and the text says so",
    ("book/teaching.md", "3 ms"): "measured once, and the text says so",
    ("book/teaching.md", "165 MB"): "measured once, and the text says so",
    ("notebooks/chips_and_rules.ipynb", "8-bit"): "the kind of a number format",
    ("notebooks/chips_and_rules.ipynb", "100,000 tokens"): "the size of our own simulation",
    ("notebooks/chips_and_rules.ipynb", "1 node"): "the lower end of our own sweep",
    ("notebooks/claims_arithmetic.ipynb", "32 tokens"): "one row of our own table",
    ("notebooks/claims_arithmetic.ipynb", "128 tokens"): "one row of our own table",
    ("notebooks/moe_gating.ipynb", "200 tokens"): "the length of our example question",
    ("notebooks/moe_gating.ipynb", "16 experts"): "the size of our own toy",
    ("notebooks/moe_gating.ipynb", "64 experts"): "a suggestion to the reader",
    ("notebooks/many_machines.ipynb", "512 tokens"): "the size of our own batch",
    ("notebooks/moe_balancing.ipynb", "2,048 tokens"): "the size of our own batch",
    ("notebooks/moe_balancing.ipynb", "95%"): "the confidence that we chose",
    ("notebooks/sparse_vs_dense.ipynb", "95%"): "the confidence that we chose",
    ("book/low_precision_results.md", "95%"): "the confidence that we chose",
    ("notebooks/quantize_real_llm.ipynb", "95%"): "the confidence that we chose",
    ("notebooks/price_of_a_token.ipynb", "90%"): "a made-up cut in a question",
    ("notebooks/price_of_a_token.ipynb", "97.5%"): "a made-up cut in a question",
    ("notebooks/price_of_a_token.ipynb", "500 tokens"): "an assumption, named as ours",
    ("notebooks/serving_costs.ipynb", "32 GPUs"): "a suggestion to the reader",
    ("notebooks/training_cost.ipynb", "648 GPUs"): "a misreading that the text refutes",
}


def markdown_pieces() -> Iterator[tuple[str, str]]:
    """Every page of the book and every Markdown cell of the notebooks, with its place."""
    for page in sorted((ROOT / "book").glob("*.md")):
        yield f"book/{page.name}", page.read_text("utf-8")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(notebook.read_text("utf-8"))["cells"]):
            if cell["cell_type"] == "markdown":
                yield f"notebooks/{notebook.name}[{number}]", "".join(cell["source"])


def docstrings() -> Iterator[tuple[str, str]]:
    """Every docstring of the library, with its place."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for file in sorted((ROOT / "src" / "slingshot").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                name = getattr(node, "name", "module")
                yield f"{file.relative_to(ROOT)}:{name}", text


def words_in_data() -> Iterator[tuple[str, str]]:
    """Our own words in the ledger and in the facts, with their place."""
    claims: list[dict[str, Any]] = yaml.safe_load((ROOT / "book/claims.yml").read_text("utf-8"))
    for claim in claims:
        for field in ("finding", "not_computable", "measured"):
            yield f"claims.yml, claim {claim['id']}, {field}", claim.get(field) or ""
        for entry in claim.get("since", ()):
            yield f"claims.yml, claim {claim['id']}, {entry['date']}", entry["text"]
    file = ROOT / "src/slingshot/facts.yml"
    entries: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text("utf-8"))
    for key, entry in entries.items():
        for field in ("label", "leaves_out"):
            yield f"facts.yml, {key}, {field}", entry.get(field) or ""


def test_no_number_is_typed() -> None:
    found = [
        (f"{place}:{line}", text)
        for place, markdown in markdown_pieces()
        for line, text in find_typed(markdown)
        if (place.partition("[")[0], text) not in REVIEWED
    ]
    assert found == [], "use {fact}`key` or {glue:text}`name`, or review the number with a reason"


def test_every_reviewed_number_stands_and_has_a_reason() -> None:
    typed = {
        (place.partition("[")[0], text)
        for place, markdown in markdown_pieces()
        for text in typed_numbers(markdown)
    }
    assert [entry for entry in REVIEWED if entry not in typed] == []
    assert [entry for entry, reason in REVIEWED.items() if len(reason.split()) < 3] == []


def test_no_quotation_of_the_article_is_long() -> None:
    assert {
        place: long for place, text in markdown_pieces() if (long := long_quotations(text))
    } == {}


def test_no_two_chapters_open_with_the_same_words() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    openings = {}
    for page in [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]:
        file = ROOT / f"{page}.md"
        if file.exists():
            openings[page] = epigraph(file.read_text("utf-8"))
        else:
            cells = json.loads((ROOT / f"{page}.ipynb").read_text("utf-8"))["cells"]
            openings[page] = epigraph("".join(cells[0]["source"]))
    assert sum(map(bool, openings.values())) > 30
    assert opening_alike(openings) == []


def test_the_style_is_one() -> None:
    names = ("README.md", "CONTRIBUTING.md")
    documents = [(name, (ROOT / name).read_text("utf-8")) for name in names]
    pieces = [*documents, *markdown_pieces(), *docstrings(), *words_in_data()]
    assert len(pieces) > 200
    found = [
        f"{place}:{line} {fault}"
        for place, text in pieces
        for line, fault in find_faults(prose(text))
    ]
    assert found == []
