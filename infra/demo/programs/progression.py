"""Which baseline measurements go with the progression of diabetes? An ordinary least squares model."""

import statsmodels.api as sm

import strongroom

data = strongroom.load("diabetes-progression")
design = sm.add_constant(data[["age", "bmi", "bp", "s5"]].astype(float))
fit = sm.OLS(data["target"], design).fit()
table = fit.params.to_frame("estimate").assign(standard_error=fit.bse)
table.to_csv(strongroom.outputs() / "progression.csv", float_format="%.17g", index_label="term")
