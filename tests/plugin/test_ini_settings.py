"""Every option has an ini setting, and the command line wins."""

from __future__ import annotations


def test_base_and_tuned_in_the_ini_file_ask_for_a_gate(project, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    project.pytester.makeini("[pytest]\nforgetguard_base = b\nforgetguard_tuned = t\n")
    result = project.run(*(["-n2"] if workers else []))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["forgetguard: base=b tuned=t"])
    assert project.judged() == ["good dcv.circuit"]


def test_the_command_line_completes_and_replaces(project) -> None:
    project.circuit("good.circuit.yaml")
    project.pytester.makeini(
        "[pytest]\nforgetguard_base = b\nforgetguard_tuned = old\nforgetguard_reference = r\n"
        "forgetguard_dtype = bfloat16\nforgetguard_seed = 5\nforgetguard_device = cuda:1\n"
    )
    result = project.run("--forgetguard", "tuned=new", "--forgetguard-seed=7")
    result.stdout.fnmatch_lines(
        [
            "forgetguard: base=b tuned=new reference=r",
            "forgetguard: device cuda:1, dtype bfloat16, seed 7",
        ]
    )


def test_the_bare_flag_takes_both_from_the_ini_file(project) -> None:
    project.circuit("good.circuit.yaml")
    project.pytester.makeini("[pytest]\nforgetguard_base = b\nforgetguard_tuned = t\n")
    assert project.run("--forgetguard", "good.circuit.yaml").ret == 0


def test_a_directory_in_the_ini_file_is_found_from_any_folder(project, monkeypatch) -> None:
    project.circuit("sub/good.circuit.yaml")
    (project.path / "runs").mkdir()
    project.pytester.makeini("[pytest]\nforgetguard_base = b\nforgetguard_tuned = runs\n")
    monkeypatch.chdir(project.path / "sub")
    result = project.run()
    result.stdout.fnmatch_lines([f"forgetguard: base=b tuned={project.path / 'runs'}"])


def test_circuits_and_switches_may_stand_in_the_ini_file(project) -> None:
    project.circuit("kept/good.circuit.yaml")
    project.circuit("tests/good-2.circuit.yaml")
    project.pytester.makeini(
        "[pytest]\nforgetguard_circuits = kept\nforgetguard_json = out.json\n"
        "forgetguard_allow_same = true\nforgetguard_device_map = auto\n"
    )
    assert project.gate("tests").ret == 0
    assert sorted(project.judged()) == ["good dcv.circuit", "good-2 dcv.circuit"]
    options = project.results()["options"]
    assert options["allow_same"] is True
    assert options["device_map"] == "auto"
