"""Kernels of fast_bpe: cut ASCII text as GPT-2 does, number the words, write and check their ids.

A word is a piece of text between two cuts, with the space before it. Known words lie in an open
hash table: ``slots`` holds word numbers (-1: free), ``hashes`` a number per word, and word w is
spelt ``spelling[spelling_ends[w]:spelling_ends[w + 1]]``. Its ids lie likewise in ``tokens``.

``ends`` of N texts or rows hold N + 1 places, the first of them where the first one begins.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# numba's cache sees this file alone: a constant imported from elsewhere could be stale.
EOT = 50256
_OTHER, _LETTER, _DIGIT, _WHITE = 0, 1, 2, 3
_APOSTROPHE, _SPACE = ord("'"), ord(" ")

_KIND = np.zeros(128, np.uint8)
_KIND[[*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)]] = _LETTER
_KIND[ord("0") : ord("9") + 1] = _DIGIT
_KIND[[ord(white) for white in "\t\n\v\f\r "]] = _WHITE

_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_HALF = np.uint64(32)


@njit(cache=True, nogil=True)
def is_ascii(text, ends, flags):  # type: ignore[no-untyped-def]
    """Set ``flags``: whether each text is ASCII."""
    for row in range(len(flags)):
        seen = np.uint8(0)
        for place in range(ends[row], ends[row + 1]):
            seen |= text[place]
        flags[row] = seen < 128


@njit(cache=True, nogil=True)
def _contraction(text, place, stop):  # type: ignore[no-untyped-def]
    """Return the length of 's 't 'd 'm 'll 've 're at ``place``, 0 if there is none."""
    if place + 1 >= stop:
        return 0
    first = text[place + 1]
    if first == ord("s") or first == ord("t") or first == ord("d") or first == ord("m"):
        return 2
    if place + 2 >= stop:
        return 0
    second = text[place + 2]
    if first == ord("l") and second == ord("l"):
        return 3
    if (first == ord("v") or first == ord("r")) and second == ord("e"):
        return 3
    return 0


@njit(cache=True, nogil=True)
def _piece(text, start, stop):  # type: ignore[no-untyped-def]
    """Return where the piece that begins at ``start`` ends, and its hash (FNV-1a).

    GPT-2's pattern, for ASCII: 's|'t|'re|'ve|'m|'ll|'d| ?letters| ?digits| ?others|white space,
    of which the last character is left to what follows.
    """
    key = (_FNV_OFFSET ^ np.uint64(text[start])) * _FNV_PRIME
    end = start + 1
    kind = _KIND[text[start]]
    if text[start] == _APOSTROPHE:
        length = _contraction(text, start, stop)
        if length:
            for end in range(start + 1, start + length):
                key = (key ^ np.uint64(text[end])) * _FNV_PRIME
            return start + length, key
    if text[start] == _SPACE and end < stop:
        kind = _KIND[text[end]]
    if kind != _WHITE:
        while end < stop and _KIND[text[end]] == kind:
            key = (key ^ np.uint64(text[end])) * _FNV_PRIME
            end += 1
        return end, key
    while end < stop and _KIND[text[end]] == _WHITE:
        end += 1
    if end < stop and end - start > 1:
        end -= 1
    for place in range(start + 1, end):
        key = (key ^ np.uint64(text[place])) * _FNV_PRIME
    return end, key


@njit(cache=True, nogil=True)
def _same(text, start, end, spelling, first, last):  # type: ignore[no-untyped-def]
    """Return whether text[start:end] and spelling[first:last] are the same bytes."""
    if last - first != end - start:
        return False
    # Unsigned: a place that cannot be negative spares a test per byte.
    here, there, step = np.uint64(start), np.uint64(first), np.uint64(1)
    stop = np.uint64(end)
    while here < stop and text[here] == spelling[there]:
        here += step
        there += step
    return here == stop


@njit(cache=True, nogil=True)
def number_words(  # type: ignore[no-untyped-def]
    text, ends, chosen, row, slots, hashes, spelling, spelling_ends, num_words, pieces, piece_ends
):
    """Write the numbers of the words of each ``chosen`` text from ``row`` on; add unknown words.

    Returns the row reached and the number of words: short of the last row where the table may
    not hold the next text's words.
    """
    mask = len(slots) - 1
    count = piece_ends[row]
    while row < len(chosen):
        start, stop = ends[row], ends[row + 1]
        if chosen[row]:
            longest = stop - start
            if num_words + longest > len(hashes):
                return row, num_words
            if spelling_ends[num_words] + longest > len(spelling):
                return row, num_words
            while start < stop:
                end, key = _piece(text, start, stop)
                key ^= key >> _HALF
                slot = np.int64(key & np.uint64(mask))
                word = slots[slot]
                while word >= 0:
                    if hashes[word] == key and _same(
                        text, start, end, spelling, spelling_ends[word], spelling_ends[word + 1]
                    ):
                        break
                    slot = (slot + 1) & mask
                    word = slots[slot]
                if word < 0:
                    word = num_words
                    slots[slot] = word
                    hashes[word] = key
                    first = spelling_ends[word]
                    for offset in range(end - start):
                        spelling[first + offset] = text[start + offset]
                    spelling_ends[word + 1] = first + end - start
                    num_words += 1
                pieces[count] = word
                count += 1
                start = end
        row += 1
        piece_ends[row] = count
    return row, num_words


@njit(cache=True, nogil=True)
def fill_slots(slots, hashes, num_words):  # type: ignore[no-untyped-def]
    """Enter the words into empty ``slots``, at least twice as many."""
    mask = len(slots) - 1
    for word in range(num_words):
        slot = np.int64(hashes[word] & np.uint64(mask))
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = word


@njit(cache=True, nogil=True)
def count_ids(pieces, piece_ends, token_ends, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` the number of ids of each text's pieces."""
    for row in range(len(counts)):
        for place in range(piece_ends[row], piece_ends[row + 1]):
            word = pieces[place]
            counts[row] += token_ends[word + 1] - token_ends[word]


@njit(cache=True, nogil=True)
def write_ids(pieces, piece_ends, tokens, token_ends, ids, id_ends):  # type: ignore[no-untyped-def]
    """Write each row that has pieces: end of text, as many ids as it has room for, end of text."""
    for row in range(len(id_ends) - 1):
        target, last = id_ends[row], id_ends[row + 1] - 1
        if piece_ends[row] == piece_ends[row + 1]:
            continue
        ids[target] = EOT
        target += 1
        place = piece_ends[row]
        while target < last:
            word = pieces[place]
            token = token_ends[word]
            stop = min(token_ends[word + 1], token + last - target)
            while token < stop:
                ids[target] = tokens[token]
                token += 1
                target += 1
            place += 1
        ids[last] = EOT


@njit(cache=True, nogil=True)
def first_wrong(ids, id_ends, cut, text, text_ends, spelling, spelling_ends):  # type: ignore[no-untyped-def]
    """Return the first row whose ids do not spell its text (a cut one: its beginning), or -1.

    ``spelling`` is that of the 50,256 ordinary ids.
    """
    for row in range(len(cut)):
        first, last = id_ends[row], id_ends[row + 1] - 1
        if last <= first or ids[first] != EOT or ids[last] != EOT:
            return row
        place, stop = text_ends[row], text_ends[row + 1]
        for index in range(first + 1, last):
            token = np.int64(ids[index])
            if token == EOT:
                return row
            start, end = spelling_ends[token], spelling_ends[token + 1]
            if place + end - start > stop:
                return row
            if not _same(text, place, place + end - start, spelling, start, end):
                return row
            place += end - start
        if (place == stop) == cut[row]:
            return row
    return -1
