"""A tiny file of each transfer syntax, to prove on any machine that its decoder works.

Files, in the order in which data meets them:
    make.py         write the files; run only to change them
    self_test.py    decode each file and compare it with the formula that it was made of
"""
