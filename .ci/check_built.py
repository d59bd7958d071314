"""Prints what a wheel and an sdist hold, and fails unless the wheel holds the package and nothing else."""

import sys
import tarfile
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
(sdist,) = folder.glob("*.tar.gz")

held = zipfile.ZipFile(wheel).namelist()
print(f"\n{wheel.name}", *held, sep="\n  ")
with tarfile.open(sdist) as archive:
    packed = [member.name.split("/", 1)[1] for member in archive if member.isfile()]
print(f"\n{sdist.name}", *packed, sep="\n  ")

version = wheel.name.split("-")[1]
info = f"dedup_middleware-{version}.dist-info/"
strangers = [name for name in held if not name.startswith(("dedup_middleware/", info))]
assert not strangers, f"the wheel holds {strangers}"
assert not [n for n in held + packed if "__pycache__" in n or n.endswith(".pyc")], "compiled files are packed"

source = Path(__file__).parent.parent
for wanted in (
    p.relative_to(source).as_posix() for p in (source / "dedup_middleware").rglob("*") if p.is_file()
):
    if "__pycache__" not in wanted:
        assert wanted in held, f"the wheel lacks {wanted}"
        assert wanted in packed, f"the sdist lacks {wanted}"
assert f"{info}licenses/LICENSE" in held, "the wheel lacks the licence"
for wanted in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "tests/test_package.py"):
    assert wanted in packed, f"the sdist lacks {wanted}"
for wanted in ("example_app", "docs"):
    if (source / wanted).is_dir():
        assert any(name.startswith(f"{wanted}/") for name in packed), f"the sdist lacks {wanted}"
