set -e
mkdir -p out
LANGUAGE=sd gettext -d seed hello > out/result
