"""Views: is the image AP, PA or lateral?

Files, in the order in which data meets them:
    judge.py    reads stored images and their views, answers by the nearest training image
    task.py     the record: what it is called, how it is scored, its words for the page
"""
