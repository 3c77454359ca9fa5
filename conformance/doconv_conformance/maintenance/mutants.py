"""Small changes of the mathematics, each of which must fail a test: `python -m doconv_conformance.maintenance.mutants`.

cosmic-ray changes one operator, number or condition at a time in a copy of the checkout and runs the tests of that module. A
mutant that all of them pass is a fault that they would not see, unless `EQUIVALENT` says why it is none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Each module with the tests that must tell its mutants from it.
CORE = {
    f"doconv_core/{name}.py": tuple(f"conformance/tests/core/test_{test}.py" for test in tests)
    for name, tests in {
        "composition": ("composition",),
        "blocked": ("blocked",),
        "convolution": ("convolution",),
        "framework_padding": ("framework_padding",),
        "padding": ("convolution",),
        "layouts": ("layouts",),
        "selection": ("selection",),
        "geometry": ("geometry", "framework_padding"),
        "checks": ("composition", "convolution", "dtypes"),
    }.items()
}
BACKENDS = {
    **{
        f"backends/doconv_torch/{name}.py": ("conformance/tests/torch/test_compose.py",)
        for name in ("_compose", "_products", "_taps", "_kernels", "_formula", "_operators")
    },
    **{
        f"backends/doconv_keras/{name}.py": tuple(f"conformance/tests/keras/test_{test}.py" for test in tests)
        for name, tests in {"_compose": ("compose", "compose_jax"), "_compose_jax": ("compose_jax",)}.items()
    },
    "backends/doconv_flax/_compose.py": tuple(
        f"conformance/tests/flax/test_{test}.py" for test in ("compose", "sharding")
    ),
}
# One mutant of each kind: that `+` became `-` shows as much as that it became `<<`.
OPERATORS = "|".join(
    (
        "NumberReplacer|AddNot|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceTrueWithFalse|ReplaceFalseWithTrue",
        "ZeroIterationForLoop|ReplaceUnaryOperator_Delete_.*",
        "ReplaceBinaryOperator_(Mul_Add|Mul_FloorDiv|Sub_Add|Add_Sub|FloorDiv_Mul|Mod_FloorDiv|Mod_Mul|Pow_Mul)",
        "ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|Lt_LtE|Lt_Gt|Gt_GtE|Gt_Lt|LtE_Lt|GtE_Gt)",
    )
)
# What a mutated line looks like whose program is the same, or the same but for time and memory.
EQUIVALENT = {
    r"strict=False": "the lengths were checked before",
    r"(frozen|kw_only)=False": "nothing in the program changes a frozen value or counts on positions",
    r"reshape\(.*- 2": "NumPy takes every negative size for what is left",
    r"_block_shape\(w\.shape\[: 4\]": "the fourth axis is not looked at",
    r"return \[stride \* ": "a full output that is too large has zeros at its end, which are cropped",
    r'"iok" if not': "all that is asked of it is whether the taps come last",
    r"TRANSPOSES_PAY = ": "which products are faster here, not what they give",
    r"MAX_\w+ = |MAX_\w+(?=.*[,)])|NUMBERS_PER_BLOCK": "how large a block is changes time and memory only",
    r"MANY_NUMBERS": "whether products are added to a copy changes time and memory only",
    r"groups == 0:|shape\[ ?\d\] == [01](:| else)": "a quicker way to the same numbers, not taken, or where it is one",
    r"groups == 0 and is_by_channel|W\.permute\(1, 2, 0\)\.is_con": "the order of the numbers in memory",
    r"grad_\w is not None or": "both are there, or neither is",
    r"groups .*ON_JAX": "which products are faster with XLA, not what they give",
    r"pairs = math\.prod|== D\.shape\[-1\] and pairs|LOOP_PAIRS, LOOP_SIZE =": "which is faster, not what it gives",
    r"bits <= 32|bits < 33": "float32 to float32",
    r"is_compiling\(\) and type": "what a compiler traces on another device than a CPU; the numbers are the same",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the mutants of the modules named, of the core by default; 1 where one survives without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(CORE | BACKENDS)}; default: the core's")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout")
    parser.add_argument("--work", type=Path, default=Path("build/mutants"), help="where the copy and the results go")
    options = parser.parse_args(arguments)
    targets = CORE | BACKENDS
    chosen = options.modules or list(CORE)
    if unknown := [module for module in chosen if module not in targets]:
        parser.error(f"unknown modules: {', '.join(unknown)}; there are {', '.join(targets)}")
    copy = options.work.resolve() / "checkout"
    copy_checkout(options.root.resolve(), copy)
    survivors = 0
    for module in chosen:
        results = run(module, targets[module], copy, options.work.resolve())
        count = 0
        for outcome, diff in results:
            count += 1
            if outcome != "survived":
                continue
            changed = "".join(line[1:] for line in diff.splitlines() if re.match(r"\+(?!\+)", line))
            reason = next((why for pattern, why in EQUIVALENT.items() if re.search(pattern, changed)), None)
            survivors += reason is None
            print(f"{module}: {'SURVIVED' if reason is None else f'the same, {reason}'}\n{diff}\n")
        print(f"{module}: {count} mutants")
    print(f"{survivors} survivors without a reason")
    return 1 if survivors else 0


def copy_checkout(root: Path, copy: Path) -> None:
    """The files that git knows: mutants are written into the copy, never into the checkout."""
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def run(module: str, tests: tuple[str, ...], copy: Path, work: Path) -> Iterator[tuple[str, str]]:
    """Outcome and diff of every mutant of one module."""
    # conftest.py and plugins would only cost time, several times what the tests take.
    bare = () if module in BACKENDS else ("--noconftest",)
    pytest = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", *bare, *tests)
    config, session = work / f"{Path(module).stem}.toml", work / f"{module.replace('/', '-')}.sqlite"
    config.write_text(
        "[cosmic-ray]\n"
        f"module-path = {json.dumps(module)}\n"
        "timeout = 600.0\nexcluded-modules = []\n"
        f"test-command = {json.dumps(' '.join(pytest))}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
        "[cosmic-ray.filters.operators-filter]\n"
        f"exclude-operators = [{json.dumps(f'core/(?!({OPERATORS})$)')}]\n",
        "utf-8",
    )
    session.unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [*(str(copy / folder) for folder in (".", "backends", "conformance")), os.environ.get("PYTHONPATH", "")]
        ),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "KERAS_BACKEND": "jax",  # on which Keras's layers compose in two ways
    }
    for command in (
        ("cosmic_ray.cli", "init", config, session),
        ("cosmic_ray.tools.filters.operators_filter", session, config),
        ("cosmic_ray.cli", "baseline", config),
        ("cosmic_ray.cli", "exec", config, session),
    ):
        subprocess.run([sys.executable, "-m", *map(str, command)], cwd=copy, env=environment, check=True)

    from cosmic_ray.work_db import WorkDB, use_db

    with use_db(str(session), WorkDB.Mode.open) as results:
        for _, result in results.completed_work_items:
            if result.test_outcome is not None:  # of another operator
                yield result.test_outcome.value, result.diff


if __name__ == "__main__":
    sys.exit(main())
