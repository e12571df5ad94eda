"""Metrics of boxes: (x0, y0, x1, y1) in continuous coordinates, y downwards.

Files, in the order in which data meets them:
    overlap.py           area, intersection over union
    voc.py               average precision of detections, PASCAL VOC's way
    coco.py              average precision of detections, COCO's way
    phrase_grounding.py  a predicted box per phrase: mean IoU, accuracy, pointing
"""
