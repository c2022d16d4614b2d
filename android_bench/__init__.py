"""Latency of TensorFlow Lite models on Android phones, measured over adb.

    adb -> device -> runner (program -> parse -> validity) -> results -> report

`python -m android_bench --help` is the way in. Imports neither TensorFlow nor pandas by itself.
"""
