"""Print what pyproject.toml asks for, given extras included, for an image that has them before its source.

python3 requirements.py EXTRA…             with all that every part of the project needs
python3 requirements.py EXTRA… of NAME…    with the named ones of these alone
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
names = sys.argv[1:]
extras, wanted = (names[: names.index("of")], names[names.index("of") + 1 :]) if "of" in names else (names, None)
needed = {re.split(r"[^\w-]", line)[0]: line for line in project["dependencies"]}
lines = list(needed.values()) if wanted is None else [needed[name] for name in wanted]
print(*lines, *(line for name in extras for line in project["optional-dependencies"][name]), sep="\n")
