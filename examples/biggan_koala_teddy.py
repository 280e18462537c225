"""Hybrids of koalas and teddy bears by modules of BigGAN-deep (S003 Fig. 5 and 13).

python examples/biggan_koala_teddy.py --weights path/to/biggan-deep-256 --out out/koala-teddy
python examples/biggan_koala_teddy.py --random-weights    # a quick test without weights
"""

from biggan_hybrids import run

if __name__ == "__main__":
    run("koala", "teddy")
