set -e
mkdir -p out
python3 setup.py --quiet build_ext --build-lib out
