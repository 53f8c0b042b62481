from setuptools import Extension, setup

setup(name="seed", version="1.0", ext_modules=[Extension("seed", ["main.c"])])
