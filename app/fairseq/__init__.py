"""What fairseq's users bring along: checkpoints, binarised data and command lines. Only commands import from here."""
