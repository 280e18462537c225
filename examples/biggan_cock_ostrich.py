"""Hybrids of cocks and ostriches by modules of BigGAN-deep (S003 Fig. 5 and 15).

python examples/biggan_cock_ostrich.py --weights path/to/biggan-deep-256 --out out/cock-ostrich
python examples/biggan_cock_ostrich.py --random-weights    # a quick test without weights
"""

from biggan_hybrids import run

if __name__ == "__main__":
    run("cock", "ostrich")
