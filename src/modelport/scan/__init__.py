"""Nothing is loaded before it is scanned.

One gate, and why it is our own. The well-kept scanners look for names that are known to be bad
(picklescan, modelscan), or rate how odd a pickle is (fickling). For a gate that must say yes or
no, what counts is the reverse: only what honest models need may pass, each call with the
arguments that honest files give it, and every byte of the file is accounted for. Measured on the
91 files of the tests' corpus that are proven to run code or to write files when they are loaded,
and on 102 honest ones (every saved form of scikit-learn and PyTorch models, real published ones):

=================  =============  ==================================
scanner            live, refused  honest, refused
=================  =============  ==================================
modelport          91             0
fickling 0.1.12    83             97
picklescan 1.0.5   58             1, and 61 called suspicious
modelscan 0.8.8    37             0, and 8 not read
=================  =============  ==================================

No hostile file that one of them finds passes here: the tests ask picklescan, which is installed
with them, as a second opinion. What they miss is mostly not a pickle: operators of TorchScript that
write files, sizes in exported programs that are evaluated as Python, archives that show one
content to the scanner and another to the loader, arrays inside joblib's files.

The parts: ``stage.py`` finds the scanner and refuses, ``scanners/`` reads one format each,
``containers/`` takes the model out of what it was shipped in, ``sweep.py`` goes through folders.
Pickles are read by ``dry_unpickler.py`` with the rules in ``calls.py`` (and ``torch_calls.py``),
zip archives by ``zip_archive.py``.
"""
