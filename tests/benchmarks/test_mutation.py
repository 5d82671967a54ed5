import pytest

from benchmarks.mutation import FEWEST, ROOT, Mutant, MutantError, is_killed


@pytest.fixture
def code(tmp_path):
    (tmp_path / "sums.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_sums.py").write_text(
        "from sums import double\n\ndef test_zero():\n    assert double(0) == 0\n"
        "\ndef test_one():\n    assert double(1) == 2\n"
    )
    return tmp_path


@pytest.mark.parametrize(("becomes", "killed"), [("3 * x", True), ("x + x", False)])
def test_a_mutant_is_killed_if_a_test_fails(code, becomes, killed):
    assert is_killed(Mutant("sums.py", "2 * x", becomes, "test_sums.py"), code) is killed
    assert "2 * x" in (code / "sums.py").read_text()


def test_tests_that_do_not_look_let_a_mutant_live(code):
    mutant = Mutant("sums.py", "2 * x", "3 * x", "test_sums.py::test_zero")
    assert not is_killed(mutant, code)


def test_tests_that_cannot_run_are_no_verdict(code):
    with pytest.raises(MutantError, match="test_none"):
        is_killed(Mutant("sums.py", "2 * x", "3 * x", "test_none.py"), code)


def test_a_mutant_that_fits_nowhere_or_twice_is_refused():
    with pytest.raises(MutantError, match="0 times"):
        Mutant("sums.py", "3 * x", "x", "").applied("2 * x")
    with pytest.raises(MutantError, match="2 times"):
        Mutant("sums.py", "x", "y", "").applied("2 * x + x")


def test_every_mutant_of_the_list_fits_the_code_as_it_is():
    mutants = Mutant.all()
    assert len(mutants) >= FEWEST
    for mutant in mutants:
        assert mutant.applied((ROOT / mutant.file).read_text()) != mutant.was
        for test in mutant.tests.split():
            assert (ROOT / test.partition("::")[0]).exists(), test
