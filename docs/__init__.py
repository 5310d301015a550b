"""The papers, and what makes and checks them: `./run docs`. Nothing here is part of the installed package."""
