"""Ask an address once; the image has no curl. An answer other than 200 is an exception."""

import sys
import urllib.request

urllib.request.urlopen(sys.argv[1], timeout=4).close()
