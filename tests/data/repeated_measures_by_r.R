# Writes repeated_measures_by_r.json: the models of tests/processing/test_cohort_repeated_measures.py fitted by R.
# Debian: r-base-core r-cran-nlme r-cran-lmertest r-cran-pbkrtest. Run: Rscript repeated_measures_by_r.R > repeated_measures_by_r.json
#
# nlme::gls fits the unstructured covariance: estimates, standard errors, -2 log REML. lme4 fits the same model as random
# visits plus a residual, one parameter too many; lmerTest and pbkrtest invert its information by a generalised inverse,
# so that their degrees of freedom are those of the unstructured model.
suppressMessages({library(nlme); library(lmerTest); library(pbkrtest)})

numbers <- function(x) paste0("[", paste(ifelse(is.na(x), "null", formatC(as.numeric(x), digits = 12, format = "g")), collapse = ", "), "]")
texts <- function(x) paste0("[", paste0("\"", x, "\"", collapse = ", "), "]")
rows <- function(m) paste0("[", paste(apply(m, 1, numbers), collapse = ", "), "]")

model <- function(name, d, design) {
  # d: y, subject, visit; design: matrix without intercept column of its own
  kept <- !is.na(d$y)
  x <- design[kept, , drop = FALSE]
  e <- data.frame(y = d$y[kept], subject = factor(d$subject[kept]), visit = factor(d$visit[kept], levels = unique(d$visit)))
  e$at <- as.integer(e$visit)
  e$x <- x
  e <- e[order(e$subject, e$at), ]
  g <- gls(y ~ 0 + x, e, correlation = corSymm(form = ~ at | subject), weights = varIdent(form = ~ 1 | visit),
           method = "REML", control = glsControl(tolerance = 1e-10, msTol = 1e-12, msMaxIter = 500, opt = "optim", maxIter = 500))
  full <- names(which.max(table(e$subject)))
  sigma <- getVarCov(g, individual = full)
  l <- lmer(y ~ 0 + x + (0 + visit | subject), e, REML = TRUE,
            control = lmerControl(check.nobs.vs.nRE = "ignore", check.conv.singular = "ignore", check.conv.grad = "ignore",
                                  check.conv.hess = "ignore", optimizer = "bobyqa", optCtrl = list(maxfun = 2e5, rhoend = 1e-9)))
  stopifnot(abs(as.numeric(-2 * logLik(g)) - as.numeric(-2 * logLik(l))) < 2e-4)
  s <- summary(l, ddf = "Satterthwaite")$coefficients
  adjusted <- vcovAdj(l)
  p <- ncol(x)
  df <- sapply(seq_len(p), function(k) { w <- numeric(p); w[k] <- 1; Lb_ddf(w, vcov(l), adjusted) })
  cat(sprintf("  \"%s\": {\n", name))
  cat("    \"values\": ", numbers(d$y), ",\n    \"subjects\": ", texts(d$subject), ",\n    \"visits\": ", texts(d$visit),
      ",\n    \"names\": ", texts(colnames(design)), ",\n    \"design\": ", rows(design), ",\n", sep = "")
  cat("    \"minus_two_reml\": ", formatC(as.numeric(-2 * logLik(g)), digits = 12, format = "g"), ",\n", sep = "")
  cat("    \"estimates\": ", numbers(coef(g)), ",\n    \"standard_errors\": ", numbers(sqrt(diag(vcov(g)))),
      ",\n    \"covariance\": ", rows(as.matrix(unclass(sigma))[, ]), ",\n", sep = "")
  cat("    \"satterthwaite\": {\"df\": ", numbers(s[, "df"]), ", \"standard_errors\": ", numbers(s[, "Std. Error"]), "},\n", sep = "")
  cat("    \"kenward-roger\": {\"df\": ", numbers(df), ", \"standard_errors\": ", numbers(sqrt(diag(as.matrix(adjusted)))), "}\n  }", sep = "")
}

# Potthoff & Roy, Biometrika 1964;51:313, as in nlme
teeth <- as.data.frame(Orthodont)
teeth <- teeth[order(teeth$Subject, teeth$age), ]
visit <- paste0("age", teeth$age)
by_visit <- sapply(unique(visit), function(v) as.numeric(visit == v))
girls <- by_visit * as.numeric(teeth$Sex == "Female")
colnames(girls) <- paste0("girl.", colnames(girls))
d <- data.frame(y = teeth$distance, subject = as.character(teeth$Subject), visit = visit)

cat("{\n \"by\": \"", R.version.string, ", nlme ", as.character(packageVersion("nlme")), ", lmerTest ", as.character(packageVersion("lmerTest")),
    ", pbkrtest ", as.character(packageVersion("pbkrtest")), "\",\n \"models\": {\n", sep = "")
model("teeth", d, cbind(by_visit, girls))
cat(",\n")
holes <- d
set.seed(5)
holes$y[sample(nrow(holes), 22)] <- NA
model("teeth_with_missing_visits", holes, cbind(by_visit, girls))
cat(",\n")

# A small trial: change from baseline at three visits, arm by visit, baseline by visit, one covariate
set.seed(11)
n <- 34
arm <- rep(0:1, length.out = n)
baseline <- rnorm(n, 90, 20)
age <- rnorm(n, 45, 9)
s <- matrix(c(60, 30, 20, 30, 80, 40, 20, 40, 100), 3)
e <- matrix(rnorm(3 * n), n) %*% chol(s)
long <- expand.grid(v = 1:3, i = 1:n)
y <- with(long, c(0, -2, -4)[v] + arm[i] * c(2, 5, 8)[v] - 0.2 * (baseline[i] - 90) + 0.1 * (age[i] - 45)) + as.vector(t(e))
y[sample(length(y), 17)] <- NA
one <- sapply(1:3, function(v) as.numeric(long$v == v))
x <- cbind(one, one * arm[long$i], one * (baseline[long$i] - 90), age[long$i] - 45)
colnames(x) <- c("M3", "M6", "M12", "arm.M3", "arm.M6", "arm.M12", "baseline.M3", "baseline.M6", "baseline.M12", "age")
model("trial", data.frame(y = y, subject = paste0("S", long$i), visit = c("M3", "M6", "M12")[long$v]), x)
cat(",\n")

# Two discs of each subject at two visits as four occasions of one covariance; sites; change by baseline of each disc
set.seed(12)
n <- 48
arm <- rep(0:1, length.out = n)
site <- sample(1:3, n, replace = TRUE)
long <- expand.grid(v = 1:2, l = 1:2, i = 1:n)
baseline <- matrix(rnorm(2 * n, 85, 15), n)
subject <- rnorm(n, 0, 5)
y <- with(long, subject[i] + arm[i] * c(3, 7)[v] - 0.15 * (baseline[cbind(i, l)] - 85) + c(0, 2, -1)[site[i]]) + rnorm(nrow(long), 0, 6)
y[sample(length(y), 20)] <- NA
occasion <- paste0(c("L4L5", "L5S1")[long$l], c("M6", "M12")[long$v])
one <- sapply(unique(occasion), function(o) as.numeric(occasion == o))
x <- cbind(one, one * arm[long$i], one * (baseline[cbind(long$i, long$l)] - 85), site[long$i] == 2, site[long$i] == 3)
colnames(x) <- c(colnames(one), paste0("arm.", colnames(one)), paste0("baseline.", colnames(one)), "site.2", "site.3")
model("levels_and_sites", data.frame(y = y, subject = paste0("S", long$i), visit = occasion), x)
cat("\n }\n}\n")
