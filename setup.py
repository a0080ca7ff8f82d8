"""Builds the compiled strip: a short list of plain Python files, typed by sibling .pxd files.

Without a C compiler the same files run interpreted (every extension is optional), and the node says so at start.
PGMURMUR_STRIP=off skips the compilation on purpose.
"""

import os
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

MODULES = runpy.run_path("node/strip.py")["STRIP"]
BUILD = "build/strip"


def declarations_changed() -> bool:
    """Cython does not see every dependency between .pxd files, and a stale layout of a class is a crash."""
    generated = [path.stat().st_mtime for path in Path(BUILD).rglob("*.c")]
    declared = [path.stat().st_mtime for path in Path("node").rglob("*.pxd")]
    return bool(generated) and max(declared) > min(generated)


def extensions() -> list[Extension]:
    if os.environ.get("PGMURMUR_STRIP") == "off":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    listed = [
        Extension(
            name=name,
            sources=[name.replace(".", "/") + ".py"],
            extra_compile_args=["-O2", "-Wno-unreachable-code"],
        )
        for name in MODULES
    ]
    built = cythonize(
        listed,
        build_dir=BUILD,
        force=declarations_changed(),
        compiler_directives={
            "language_level": "3",
            # Indexes of lists and byte strings stay checked, and negative ones work: what walks bytes does so by C
            # pointers, which that does not slow down.
            "binding": False,
            # Types come from the .pxd alone: an annotation of a Python int must not forbid a C integer.
            "annotation_typing": False,
        },
    )
    for extension in built:
        extension.optional = True  # here, since cythonize() makes new ones and forgets it
    return built


class BuildIfPossible(build_ext):
    """For setuptools a compiler that fails is an error of an optional extension, one that is not there is a crash."""

    def build_extension(self, extension: Extension) -> None:
        try:
            super().build_extension(extension)
        except OSError as missing:
            raise CompileError(str(missing)) from missing


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildIfPossible})
