"""From a run to a published model: signatures, guards, files, proof."""
