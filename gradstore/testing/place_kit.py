"""What every Place must do. Subclass it, say how to make one, and inherit the tests:

class TestMyPlace(PlaceContract):
    @pytest.fixture
    def place(self) -> Place: ...
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from gradstore.store.place import Place, place_of


class PlaceContract:
    """Tests that hold for a folder and for a bucket; `place` is an empty one."""

    def test_what_was_written_is_read(self, place: Place) -> None:
        place.write("a/b.json", b"{}")
        place.write("a/b.json", memoryview(b"later"))
        assert place.read("a/b.json") == b"later"
        entry = place.entry("a/b.json")
        assert entry is not None
        assert (entry.name, entry.bytes, place.exists("a/b.json")) == ("a/b.json", 5, True)

    def test_what_is_not_there_is_not_there(self, place: Place) -> None:
        assert (place.entry("none"), place.exists("none"), list(place.names("none"))) == (None, False, [])
        for read in (place.read, lambda name: place.ranges(name, [(0, 1)]), lambda name: list(place.stream(name))):
            with pytest.raises(FileNotFoundError):
                read("none")
        place.remove("none")

    def test_a_new_name_is_given_once(self, place: Place) -> None:
        assert place.write_new("c/1", b"first")
        assert not place.write_new("c/1", b"second")
        assert place.read("c/1") == b"first"
        place.remove("c/1")
        assert place.write_new("c/1", b"third")

    def test_of_many_writers_of_a_new_name_one_is_first(self, place: Place) -> None:
        contents = [bytes([n]) * 1000 for n in range(8)]
        with ThreadPoolExecutor(8) as pool:
            firsts = list(pool.map(lambda content: place.write_new("race", content), contents))
        assert firsts.count(True) == 1
        assert place.read("race") == contents[firsts.index(True)]

    def test_ranges_come_in_the_order_asked_for_and_end_with_the_file(self, place: Place) -> None:
        place.write("r", bytes(range(100)))
        assert place.ranges("r", [(90, 95), (0, 3), (98, 120)]) == [bytes(range(90, 95)), b"\0\1\2", b"bc"]
        assert place.ranges("r", [(0, 2), (100, 110)]) == [b"\0\1", b""]

    def test_many_small_files_are_read_in_order(self, place: Place) -> None:
        names = [f"many/{n}" for n in range(20)]
        for name in names:
            place.write(name, name.encode())
        assert list(place.read_many(names)) == [name.encode() for name in names]

    def test_a_stream_gives_the_whole_file(self, place: Place) -> None:
        content = bytes(range(256)) * 40_000
        with place.replacing("large") as temporary:
            temporary.write_bytes(content)
        assert b"".join(place.stream("large")) == content

    def test_an_error_while_replacing_leaves_what_was_there(self, place: Place) -> None:
        place.write("f", b"old")
        with pytest.raises(ZeroDivisionError), place.replacing("f") as temporary:
            temporary.write_bytes(bytes(1 // 0))
        assert place.read("f") == b"old"
        assert [entry.name for entry in place.entries()] == ["f"]

    def test_a_listing_shows_files_and_if_asked_folders(self, place: Place) -> None:
        for name in ("top", "a/1", "a/2", "a/b/3", "ab/4"):
            place.write(name, b"x")
        assert sorted(place.names()) == ["top"]
        assert sorted(place.names(folders=True)) == ["a", "ab", "top"]
        assert sorted(place.names("a")) == ["a/1", "a/2"]
        assert {entry.name: entry.bytes for entry in place.entries("a")} == {"a/1": 1, "a/2": 1, "a/b/3": 1}
        assert len(list(place.entries())) == 5

    def test_entries_know_when_they_were_written(self, place: Place) -> None:
        place.write("first", b"1")
        place.write("second", b"2")
        written = {entry.name: entry.modified for entry in place.entries()}
        assert 1.7e9 < written["first"] <= written["second"]

    def test_it_is_found_again_by_its_location_and_after_pickling(self, place: Place) -> None:
        place.write("f", b"1")
        assert place_of(place.location).read("f") == b"1"
        assert pickle.loads(pickle.dumps(place)).read("f") == b"1"
        assert isinstance(place, Place)
