"""Does cost sharing reduce doctor visits?

Poisson regression of the visits in a year on coinsurance, plan and health status, with robust standard errors, on the
RAND Health Insurance Experiment. Puts out a table, a picture and a short report.
"""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import statsmodels.api as sm

import strongroom

COLUMNS = ["lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]

data = strongroom.load("rand-hie")
design = sm.add_constant(data[COLUMNS].astype(float))
fit = sm.GLM(data["mdvis"], design, family=sm.families.Poisson()).fit(cov_type="HC0")

table = fit.params.to_frame("estimate").assign(standard_error=fit.bse, z=fit.tvalues)
folder = strongroom.outputs()
table.to_csv(folder / "coefficients.csv", float_format="%.17g", index_label="term")

rates = np.linspace(0, 95, 50)
mean = design.mean()
expected = []
for rate in rates:
    person = mean.copy()
    person["lncoins"] = np.log(rate + 1)
    expected.append(float(np.exp(person @ fit.params)))
figure, axes = plt.subplots(figsize=(7, 4))
axes.plot(rates, expected, color="#0b5054", linewidth=2)
axes.set(xlabel="Coinsurance rate (per cent)", ylabel="Expected visits in a year", ylim=(0, None))
axes.set_title("Visits fall as people pay a larger share")
figure.tight_layout()
figure.savefig(folder / "visits.png", dpi=110)

effect = 100 * (np.exp(fit.params["lncoins"] * np.log(26)) - 1)
(folder / "report.md").write_text(
    "# Does cost sharing reduce doctor visits?\n\n"
    f"Person-years: about {round(len(data), -1)}.\n\n"
    f"Compared with free care, a coinsurance rate of 25 per cent goes with {effect:+.1f} per cent visits "
    f"(coefficient of lncoins {fit.params['lncoins']:.4f}, robust standard error {fit.bse['lncoins']:.4f}).\n"
)
print("done:", len(data), "person-years")
