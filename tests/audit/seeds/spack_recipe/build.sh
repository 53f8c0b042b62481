set -e
mkdir -p out
python3 recipe.py
cp config.h out/
