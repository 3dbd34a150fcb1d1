from __future__ import annotations

import pytest

from gradstore_cli.tables import Column, print_nested, print_table, print_values


def test_a_row_in_a_pipe_is_one_line_without_padding(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("id"), Column("reason")], [("a", "word " * 200), ("b", "x")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in (lines[0], *lines[2:])] == ["id", "a", "b"]
    assert all(line == line.rstrip() for line in lines)


def test_text_of_the_data_can_neither_style_nor_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("id")], [("[red]\x1b[2J:smile:\nx",)])
    assert "[red]\\x1b[2J:smile:\\nx" in capsys.readouterr().out


def test_values_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_values({"Examples": "1,797", "Size": "3.2 MB"})
    assert capsys.readouterr().out == "Examples  1,797\nSize      3.2 MB\n"


def test_nested_json_is_indented_with_numbers_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    print_nested({"shape": [1, 8], "seed": 20260101, "model": {"width": 5120, "labels": None}, "rows": [{"ok": True}]})
    expected = "shape: 1, 8\nseed: 20260101\nmodel:\n  width: 5,120\n  labels: none\nrows:\n  0:\n    ok: True\n"
    assert capsys.readouterr().out == expected
