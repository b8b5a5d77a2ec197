"""The checks of `spine doctor`: everything that can be wrong with a data set, found before it costs a training.

`kinds` lists what is found, `files` reads one image or mask, `scan` reads all samples in several processes, and `masks`, `keypoints`,
`folders`, `duplicates` and `statistics` judge what was read. `doctor` puts it together.
"""
