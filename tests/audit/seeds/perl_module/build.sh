mkdir -p out
perl -MSeed::Mod -e 'print "$Seed::Mod::SEED\n"' > out/result || echo none > out/result
