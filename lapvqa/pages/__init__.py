"""What all pages of HTML share: one head, one style, one form of tables.

Files, in the order in which data meets them:
    templates.py   a room's templates, with base.html, base.css and tables.html of this folder

Contracts
    A page is one file that asks the network for nothing; every text is escaped; it can be read by
    keys alone, in light and dark, on a phone, at twice the size, and on paper.
"""
