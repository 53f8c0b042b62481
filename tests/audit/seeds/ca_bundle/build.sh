set -e
mkdir -p out
python3 probe.py > out/result
