"""Which tests start a process of their own. All others run commands in the process of the tests: that takes a tenth."""

import ast
from pathlib import Path

# where a process is the point, and why; the slow ones are marked in their files
LISTED = {
    "test_completion.py": {
        "test_bash_completes_commands_keys_and_choices": "a shell",
        "test_older_bash_adds_no_space_to_a_key": "a shell",
        "test_other_shells_read_their_script": "shells",
    },
    "test_errors.py": {
        "test_unknown_command_names_the_closest": "exit code 2",
        "test_help_lists_the_commands_and_imports_no_large_library": "what is imported",
    },
    "test_evidence.py": {
        "test_killed_evidence_goes_on_in_parallel_and_ends_as_that_of_one_process": "SIGKILL",
        "test_interrupted_evidence_ends_at_once_and_leaves_nothing_half_done": "signals",
    },
    "test_inspect.py": {
        "test_help_lists_keys_and_torch_stays_away": "what is imported",
        "test_script_does_what_the_command_does_and_hides_no_module": "a script, and what a folder on sys.path hides",
    },
    "test_interrupted.py": {"test_streams_that_nobody_reads_do_not_matter": "closed streams at the exit"},
    "test_predict.py": {
        "test_several_processes_give_the_bytes_of_one": "torchrun",
        "test_killed_run_goes_on_to_the_same_bytes": "SIGKILL",
        "test_killed_run_is_not_gone_on_from_with_another_header": "SIGKILL",
        "test_50_kills_at_random_moments_give_50_times_the_same_bytes": "SIGKILL",
    },
    "test_sweep.py": {"test_sweep_after_a_kill_trains_nothing_twice": "SIGKILL"},
    "test_train.py": {
        "test_terminated_run_exits_with_143_and_keeps_its_checkpoint": "SIGTERM",
        "test_one_seed_gives_one_model_in_any_process": "bits of another process",
        "test_several_processes_train_the_network_of_one": "DDP",
    },
    "test_weights.py": {"test_drawing_imports_no_torch": "what is imported"},
}
# of these every test may: memory of the process, an audit hook that stays, a browser
MODULES = {"test_damaged.py", "test_hostile_models.py", "test_report_page.py"}
_STARTERS = {"subprocess", "hsfusion_process", "forked", "multiprocessing"}


def test_only_listed_tests_start_a_process():
    paths = [path for path in sorted(Path(__file__).parent.glob("test_*.py")) if path.name not in MODULES]
    started = {path.name: tests for path in paths if (tests := _starting(path))}
    assert started == {name: set(tests) for name, tests in LISTED.items()}


def _starting(path):
    """Names of the tests that mention what starts a process, or a function or fixture that does."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    names = {function.name: _mentioned(function) for function in functions}
    starters = set(_STARTERS)
    while more := {name for name, used in names.items() if used & starters} - starters:
        starters |= more
    return {name for name in starters if name.startswith("test_")}


def _mentioned(function):
    nodes = list(ast.walk(function))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
