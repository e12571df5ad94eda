"""A page on this machine for trying the model: drop a film, see what the model makes of it.

Files, in the order in which data meets them:
    looking.py  one film to what the page shows: caption, findings, similar films, attention
    app.py      the page, and the address that films are sent to
    page.html   the page itself: no library, nothing from elsewhere

Contracts
    Loopback only, for a browser on this machine: other hosts' names are refused. Nothing is kept of
    a film. Films of the archive are shown by the rules of ``lapvqa.report.patients`` alone.
"""
