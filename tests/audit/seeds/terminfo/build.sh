mkdir -p out
TERM=seedterm tput cols > out/result || echo none > out/result
