"""The command line of an experiment's script."""

import argparse
import contextlib
import functools
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

import jax

from cljax import train
from cljax.core import check
from cljax.study import executors, files, plain, report
from cljax.study.claims import Claim
from cljax.study.execute import check_run, execute
from cljax.study.grid import check_arms, expand, fields, kind_name, parse_sets
from cljax.study.sweep import experiment_name, opened, prepare, publish
from cljax.train.processes import abandon, from_first, is_first


def main(run, arms, claims, *, full=None, vmap=False, seeds=5, figures=None):
    """Runs an experiment as the command line asks: a table over seeds, the verdict on each claim, pictures.

    Writes `OUT/<experiment>/` (`--out`, by default `runs`): `report.json`, `table.md`, pictures, and a folder for each cell. Finished cells are read,
    not run again. Leaves by `sys.exit` with 1 where a cell or a claim failed or a result could not be kept, with 2 for a wrong argument and where
    another process works in the folder, with 130 or 143 where it was interrupted.

    Args:
      run: `run(config, key, fit) -> {metric: float or 1-D array}`, a function at the top level of the script.
      arms: `{name: config}`: the method, its baselines, its ablations.
      claims: a list of `Claim`.
      full: the config of the paper's scale, which `--full` runs as the one arm "full".
      vmap: whether `run` can be traced; on an accelerator the seeds of an arm then run as one program, `jax.vmap(run)`.
      seeds: how many seeds where `--seeds` does not say.
      figures: `figures(report) -> {name: Figure}`, with the report as `report.json` holds it; by default scores, curves and claims are drawn.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: no arm, or two claims with one name.
    """
    check_run(run)
    check_arms(arms)
    check.integer("seeds", seeds, at_least=1)
    claims = list(claims)
    for claim in claims:
        if not isinstance(claim, Claim):
            raise TypeError(f"claims must hold Claims, got {type(claim).__name__}")
    repeated = sorted({claim.name for claim in claims if [other.name for other in claims].count(claim.name) > 1})
    if repeated:
        raise ValueError(f"claims must have different names, got twice: {', '.join(map(repr, repeated))}")
    if full is not None:
        check_arms({"full": full})
    code = _command(sys.argv[1:], run, arms, claims, full, vmap, seeds, figures)
    if code:
        sys.exit(code)


def _command(arguments, run, arms, claims, full, vmap, seeds, figures):
    """Does what the arguments ask and returns the exit code."""
    options = _parse(arguments, run, seeds)
    if options.list:
        _say(_listing(run, arms, claims, full))
        return 0
    if options.data_dir:
        os.environ["CLJAX_DATA"] = str(Path(options.data_dir).expanduser().absolute())
    before, hook = _leave_on_sigterm(), sys.unraisablehook
    sys.unraisablehook = functools.partial(_send_again, hook)
    place = Path(options.out).expanduser().absolute() / experiment_name(run)
    todo = []
    try:
        return _study(options, run, arms, claims, full, vmap, figures, todo)
    except KeyboardInterrupt:
        return _left(f"\ninterrupted: {_kept(place, todo)}", 130)
    except SystemExit as stop:
        if stop.code == 143:
            return _left(f"\ninterrupted: {_kept(place, todo)}", 143)
        raise
    except files.Unwritable as error:
        code = _left(f"error: {error}; {_kept(place, todo)}", 1)
        abandon(code)
        return code
    finally:
        sys.unraisablehook = hook
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _make_data_folder():
    path = Path(os.environ["CLJAX_DATA"])
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--data-dir must be a folder, got {str(path)!r}, where there is none and none can be made: {error.strerror}") from None


def _study(options, run, arms, claims, full, vmap, figures, todo):
    """Runs the cells, which are added to `todo`, and returns the exit code."""
    with contextlib.ExitStack() as stack:
        try:
            several = train.join()  # before anything asks for devices
            chosen = _chosen(options, arms, full)
            grid = parse_sets(options.set, chosen.values())
            check.integer("--seeds", options.seeds, at_least=1)
            executors.check_workers(options.workers)
            if options.data_dir and not options.cluster:  # that of a cluster need not be here
                _make_data_folder()
            if options.cluster and options.workers > 1:
                raise ValueError("--workers are processes of this machine: --cluster must not be given with them")
            away = options.cluster or options.workers > 1
            if several and away:
                raise ValueError("--workers and --cluster run cells beside each other: they must not be given to processes that train as one")
            if options.devices is not None:
                if away:
                    raise ValueError("--devices are those of one process: --workers and --cluster must not be given with it")
                stack.enter_context(jax.set_mesh(_mesh(options.devices)))
            # On CPU a vmapped small product is slower than one after another.
            population = vmap and not away and options.devices is None and jax.default_backend() != "cpu"
            todo += expand(run, chosen, grid, options.seeds, population)
            executor = None
            if options.cluster:
                executor = stack.enter_context(executors.cluster(options.cluster)).get_executor(pure=False)
                check_run(run, executor)
            folder = stack.enter_context(opened(options.out, run))
        except (TypeError, ValueError) as error:
            if jax.distributed.is_initialized():
                from_first(None)  # the others wait to be told
            return _left(f"error: {error}", 2)
        if is_first():
            for line in prepare(folder, run, todo, population=population, restart=options.restart):
                print(line, file=sys.stderr)
        if from_first((1,) if is_first() else None) is None:
            return 2  # it works in the folder alone, and has said why it can't
        try:
            results, ran = execute(run, todo, folder / "cells", executor=executor, workers=options.workers, population=population)
        except ValueError as error:
            return _left(f"error: {error}", 1)
        if not is_first():
            return int(any("error" in result for result in results.values()))
        built, problems = report.build(folder.name, todo, results, options.seeds, claims, [*arms, "full"], grid)
        pictures = publish(folder, todo, built, run, shlex.join(["python", *sys.argv]), figures, fresh=ran > 0)
    lines = [report.text(built), f"report    {_short(folder / 'report.json')}", f"table     {_short(folder / 'table.md')}"]
    _say("\n".join(lines + [f"{'' if place else 'pictures':10}{_short(folder / name)}" for place, name in enumerate(pictures)]))
    for problem in dict.fromkeys(problems):
        print(problem, file=sys.stderr)
    failed = sum("error" in result for result in results.values())
    if failed:
        print(f"{failed} of {len(results)} cells failed; the same command tries them again", file=sys.stderr)
    return 1 if failed or problems else 0


def _parse(arguments, run, seeds):
    module = sys.modules.get(run.__module__)
    parser = argparse.ArgumentParser(
        prog=f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else experiment_name(run),
        description=(getattr(module, "__doc__", None) or experiment_name(run)).strip(),
        epilog="""A cell (an arm, a point of the grid, a seed) that is finished is not run again. Order and workers change no number, devices no more
than rounding does.

exit status: 0  done
             1  a cell failed, a claim could not be evaluated, or a result could not be written
             2  a wrong argument, or another process works in the folder of results: nothing was run
           130  interrupted by Ctrl-C, 143 by SIGTERM: the same command goes on from there""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("--arm", action="append", default=[], metavar="NAME", help="run this arm only; may be given several times (--list names them)")
    flag("--seeds", type=int, default=seeds, metavar="N", help="how many seeds, 0 to N-1 (default: %(default)s)")
    flag(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=V1,V2",
        help="run the arms with each of these values of a field of their config; several --set make a grid; "
        "'optim.learning_rate=0.1' is a nested field, 'widths=64:32' a tuple",
    )
    flag("--data-dir", metavar="DIR", help="where data sets lie (default: $CLJAX_DATA, else ~/.cache/cljax)")
    flag("--out", default="runs", metavar="DIR", help="where results go (default: %(default)s)")
    flag("--workers", type=int, nargs="?", const=os.cpu_count(), default=1, metavar="N", help="run cells in N processes (without N: one a core)")
    flag("--devices", type=int, metavar="N", help="split each batch among N devices (default: all accelerators, or one CPU device)")
    flag("--cluster", metavar="ADDRESS", help="run cells on the dask cluster whose scheduler is at this address (needs cljax[cluster])")
    flag("--restart", action="store_true", help="run finished cells again too: what is there is moved to DIR/<experiment>/aside, not deleted")
    flag("--full", action="store_true", help="run the paper's scale instead of the arms")
    flag("--list", action="store_true", help="print arms, fields and claims, and run nothing")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [text for action in parser._actions for text in action.option_strings]
        wrong = unknown[0].partition("=")[0]
        what = "flag" if wrong.startswith("-") else "argument"
        parser.exit(2, f"error: unknown {what} {wrong!r}{check.nearest(wrong, flags)}; the flags are {', '.join(flags)}\n")
    return options


def _chosen(options, arms, full):
    for name in options.arm:
        check.choice("--arm", name, list(arms))
    if not options.full:
        return {name: arms[name] for name in options.arm} or arms
    if full is None:
        raise ValueError("--full: this experiment has no full-scale configuration")
    if options.arm:
        raise ValueError("--full runs one arm, the full-scale configuration: --arm must not be given with it")
    return {"full": full}


def _mesh(count):
    """A mesh of so many devices, those of a CPU made for it: `train.fit` splits batches along its axis."""
    check.integer("--devices", count, at_least=1)
    with contextlib.suppress(RuntimeError):  # something has counted the devices already
        jax.config.update("jax_num_cpu_devices", max(count, jax.config.jax_num_cpu_devices))
    if count > jax.device_count():
        raise ValueError(f"--devices must be at most the {jax.device_count()} that are here ({jax.default_backend()}), got {count}")
    if count % jax.process_count():
        raise ValueError(f"--devices must be the same number for each of the {jax.process_count()} processes, got {count} in all")
    share, every = count // jax.process_count(), jax.local_device_count()
    devices = [device for place, device in enumerate(jax.devices()) if place % every < share]
    return jax.make_mesh((count,), ("data",), devices=devices)


def _left(line, code):
    print(line, file=sys.stderr)
    return code


def _say(text):
    """Prints to a reader who may have left, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its end goes there


def _kept(folder, todo):
    keys = {cell.key for cell in todo}
    done = sum((folder / "cells" / key / "result.json").exists() for key in keys)
    return f"{done} of {len(keys)} cells are finished and kept in {_short(folder)}; the same command goes on from there"


def _leave_on_sigterm():
    """Makes SIGTERM an orderly exit, which also ends the workers; returns the handler that was there, None where there is nothing to restore."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _send_again(hook, swallowed):
    """Sends Ctrl-C, or SIGTERM, once more that came in a finaliser or in a callback of the garbage collector, where Python drops exceptions."""
    number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(swallowed.exc_type)
    if number is None:
        hook(swallowed)
    else:
        timer = threading.Timer(0.02, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()


def _short(path):
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _listing(run, arms, claims, full):
    """Arms with what sets them apart from the first one, fields with types and values, claims."""
    first = next(iter(arms.values()))
    common = fields(first)
    lines = [f"{experiment_name(run)}: {plain.script(run) or ''}", "", "arms (--arm)"]
    width = max(map(len, [*arms, "full"]))
    for name, config in (arms | ({"full": full} if full is not None else {})).items():
        values = {field: value for field, (_, value) in fields(config).items() if not hasattr(value, "__dataclass_fields__")}
        apart = [f"{field}={value}" for field, value in values.items() if field not in common or common[field][1] != value]
        note = "(--full)  " if full is not None and name == "full" and name not in arms else ""
        lines.append(f"  {name:{width}}  {note}{' '.join(apart)}".rstrip())
    lines += ["", f"fields (--set), with the values of {next(iter(arms))!r}"]
    width = max(map(len, common))
    for name, (kind, value) in common.items():
        if not hasattr(value, "__dataclass_fields__"):
            lines.append(f"  {name:{width}}  {value!s:12}  {kind_name(kind)}")
    lines += ["", "claims"] if claims else []
    for claim in claims:
        expected = f", expected {claim.expected:g}" if claim.expected is not None else ""
        lines.append(
            f"  {claim.name}: {report.bounds(vars(claim))}{expected}" + (f" ({claim.of})" if type(claim.of).__module__ == Claim.__module__ else "")
        )
    return "\n".join(lines)
