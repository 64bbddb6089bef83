from __future__ import annotations

from bench.quality import CARDS, PAGE, model_cards, results_page


def test_the_pages_of_results_are_what_the_script_makes_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == results_page()
    assert CARDS.read_text(encoding="utf-8") == model_cards()
