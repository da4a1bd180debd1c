from mjx_hkl.experiments import machine
from mjx_hkl.experiments.run_directory import RunDirectory


def test_each_start_of_a_run_is_noted(tmp_path):
    run = RunDirectory(tmp_path)
    assert machine.machines(run) == []
    machine.note(run, num_devices=1)
    machine.note(run, num_devices=1)
    first, second = machine.machines(run)
    assert first.device == second.device != ""
    assert {"mjx-hkl", "jax", "mujoco"} < set(first.versions)


def test_a_damaged_note_is_begun_anew(tmp_path):
    run = RunDirectory(tmp_path)
    for damaged in ("", "[1]", "{", "7", '[{"device": 3}]', '[{"colour": "red"}]'):
        run.machines.write_text(damaged)
        assert machine.machines(run) == []
    machine.note(run, num_devices=1)
    assert len(machine.machines(run)) == 1
