"""Files and folders are the old ones or the new ones."""

import pytest

from mjx_hkl.experiments.whole import whole_folder, write_whole


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "agent"
    for text in ("old", "new"):
        with whole_folder(folder) as part:
            (part / "a").write_text(text)
    assert (folder / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


def test_the_old_folder_comes_back_where_a_process_died_between_two_renames(tmp_path):
    folder = tmp_path / "agent"
    (tmp_path / ".agent.old").mkdir()
    (tmp_path / ".agent.old" / "a").write_text("old")
    (tmp_path / ".agent.part").mkdir()

    def write():
        with whole_folder(folder):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


@pytest.mark.parametrize("error", [OSError("no room"), KeyboardInterrupt()])
def test_of_a_folder_that_fails_nothing_stays_but_the_old_one(tmp_path, error):
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "a").write_text("old")

    def write():
        with whole_folder(folder) as part:
            (part / "a").write_text("new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


def test_of_a_file_that_fails_nothing_stays(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    assert not any(tmp_path.iterdir())
