"""Builds the compiled strip: a short list of plain Python files, typed by sibling .pxd files.

Without a C compiler the same files run interpreted (every extension is optional), and the node says so at start.
PGMURMUR_STRIP=off skips the compilation on purpose.
"""

import os
import runpy

from setuptools import Extension, setup

MODULES = runpy.run_path("node/strip.py")["STRIP"]


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
            optional=True,
        )
        for name in MODULES
    ]
    return cythonize(
        listed,
        build_dir="build/strip",
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "binding": False,
            # Types come from the .pxd alone: an annotation of a Python int must not forbid a C integer.
            "annotation_typing": False,
        },
    )


setup(ext_modules=extensions())
