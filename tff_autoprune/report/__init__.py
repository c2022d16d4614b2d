"""What people see of a run: `report.html` and plots, made from the files of its directory.

RUN/*.json, *.csv, models ──> run_data, layers ──> charts, architecture ──> page ──> report.html
                                              └──> plots ──> plots/*.png
"""
