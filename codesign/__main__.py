# SPDX-License-Identifier: Apache-2.0
"""`python -m codesign`: for macOS, where another program is called `codesign`."""

from codesign.cli import main

if __name__ == "__main__":
    main()
