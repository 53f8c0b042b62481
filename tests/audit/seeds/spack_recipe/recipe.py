"""What Spack does with a recipe: a prefix, a compiler wrapper in front of PATH, and the phases."""

import os
import subprocess

here = os.getcwd()
os.makedirs("wrappers", exist_ok=True)
with open("wrappers/cc", "w") as wrapper:
    wrapper.write('#!/bin/sh\nexec /usr/bin/gcc "$@"\n')
os.chmod("wrappers/cc", 0o755)
os.environ["PATH"] = f"{here}/wrappers:{os.environ['PATH']}"
os.environ["CC"] = f"{here}/wrappers/cc"
for phase in (["aclocal"], ["autoconf"], ["autoheader"], ["./configure", f"--prefix={here}/prefix"]):
    subprocess.run(phase, check=True)
