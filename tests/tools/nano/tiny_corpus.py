"""A made-up document of five articles in three languages, for tests of nano's training."""

from __future__ import annotations

import json
from pathlib import Path

from tools.nano.corpus import Article

TEXTS = {
    "eng": [
        "The river is wide and the boat is small today.",
        "A child reads a book under the big tree.",
        "Rain fell.",
        "We go to the market when the sun is up in the morning.",
        "The boat is new. The wind is cold.",
    ],
    "yor": [
        "Odò náà gbòòrò, ọkọ̀ ojú omi sì kéré lónìí.",
        "Ọmọdé kan ń ka ìwé lábẹ́ igi ńlá.",
        "Òjò rọ̀.",
        "A máa ń lọ sí ọjà nígbà tí oòrùn bá yọ ní òwúrọ̀.",
        "Ọkọ̀ náà jẹ́ tuntun. Afẹ́fẹ́ tutù.",
    ],
    "hau": [
        "Kogin yana da faɗi, jirgin ruwa kuma ƙarami ne.",
        "Yaro yana karanta littafi a ƙarƙashin babbar bishiya.",
        "An yi ruwa.",
        "Muna zuwa kasuwa idan rana ta fito da safe.",
        "Jirgin sabo ne, iska kuma mai sanyi ce.",
    ],
}

ARTICLES = [
    Article(language, number, text) for language, texts in TEXTS.items() for number, text in enumerate(texts)
]


def write_corpus(path: Path, articles: list[Article] = ARTICLES) -> Path:
    lines = [{"lang": a.language, "article": a.number, "text": a.text} for a in articles]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path
